"""Options of `mmdata validate` about what training would make of shards. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least
from mmdata.training_view import defaults

Peer = Literal["openflamingo"]
Surplus = Literal["drop", "argmax"]
Stream = Literal["auto", "interleaved", "caption"]


@dataclass(frozen=True, kw_only=True)
class UseOptions(Options):
    """What training uses of a document, for the forecast of it."""

    section: ClassVar[str] = "Forecast of training"

    min_similarity: float = defaults.MIN_SIMILARITY
    """Training leaves out images whose similarity to their sentence is below this (0 to 1)."""
    min_image_bytes: int = defaults.MIN_IMAGE_BYTES
    """Training leaves out images whose file is smaller, in bytes."""
    max_images: int = defaults.MAX_IMAGES
    """Training uses so many images of a document at most."""

    def _check(self) -> None:
        check_least(self, 0, "min_image_bytes")
        check_least(self, 1, "max_images")


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(UseOptions):
    """What a forecast can be told; the names and defaults are the trainer's."""

    forecast: bool = False
    """Also tell what a training run would use of the shards, and why not the rest."""
    peer: Peer | None = None
    """Also tell what another project's loader would do with the same shards."""
    stream: Stream = "auto"
    """interleaved: documents; caption: one image and its text. auto: as the manifest says."""
    min_images: int = defaults.MIN_IMAGES
    """Training leaves out documents with fewer images."""
    keep_single_image: float = defaults.KEEP_SINGLE_IMAGE
    """Training keeps this share of the documents with one image (0 to 1)."""
    surplus: Surplus = "drop"
    """What becomes of images that outnumber the sentences in training."""
    tokenizer: str | None = None
    """Name or folder of a transformers tokenizer, to count tokens and cut texts."""
    max_tokens: int | None = None
    """Tokens of a sample at most. Default: 256 interleaved, 32 captions."""
    batch_size: int = 8
    """Samples of a global batch, for steps and padding."""
    exact: bool = False
    """Read every document that the forecast needs, instead of tables and a sample."""
    sample_documents: int = 2000
    """Documents in the sample, where the samples tables do not answer."""
    seed: int = 0
    """Seed of the sample of documents."""

    def _check(self) -> None:
        check_least(self, 1, "sample_documents", "batch_size")
        check_least(self, 5, "max_tokens")
        if self.max_tokens is not None and self.tokenizer is None:
            raise UserError("--max-tokens: needs --tokenizer, which makes the tokens")
        if self.exact and not (self.forecast or self.peer):
            raise UserError("--exact: goes with --forecast or --peer")

    @property
    def looks_ahead(self) -> bool:
        """Whether anything is asked about training."""
        return self.forecast or self.peer is not None
