"""Options of `mmdata validate` about what training would make of shards. Standard library only."""

from dataclasses import dataclass
from typing import Literal

from mmdata.errors import UserError
from mmdata.option_checks import at_least

Peer = Literal["openflamingo"]
Surplus = Literal["drop", "argmax"]
Stream = Literal["auto", "interleaved", "caption"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOptions:
    """What a forecast can be told; the names and defaults are the trainer's."""

    forecast: bool = False
    """Also tell what a training run would use of the shards, and why not the rest."""
    peer: Peer | None = None
    """Also tell what another project's loader would do with the same shards."""
    exact: bool = False
    """Read every document that the answer needs, instead of tables and a sample."""
    sample_documents: int = 2000
    """Documents in the sample, where the samples tables do not answer."""
    seed: int = 0
    """Of the sample."""
    stream: Stream = "auto"
    """interleaved: documents; caption: one image and its text. auto: as the manifest says."""
    min_similarity: float = 0.24
    """Forecast: images whose similarity to their sentence is below this are not used (0 to 1)."""
    min_image_bytes: int = 11_000
    """Forecast: images whose file is smaller are not used."""
    max_images: int = 6
    """Forecast: images of a document at most."""
    min_images: int = 1
    """Forecast: documents with fewer images are not used."""
    keep_single_image: float = 0.5
    """Forecast: share of the documents with one image that is kept (0 to 1)."""
    surplus: Surplus = "drop"
    """Forecast: what becomes of images that outnumber the sentences."""
    tokenizer: str | None = None
    """Forecast: name or folder of a transformers tokenizer, to count tokens and cut texts."""
    max_tokens: int | None = None
    """Forecast: tokens of a sample at most. Default: 256 interleaved, 32 captions."""
    batch_size: int = 8
    """Forecast: samples of a global batch, for steps and padding."""

    def __post_init__(self) -> None:
        at_least(self.sample_documents, 1, "--sample-documents")
        at_least(self.batch_size, 1, "--batch-size")
        if self.max_tokens is not None:
            at_least(self.max_tokens, 5, "--max-tokens")
            if self.tokenizer is None:
                raise UserError("--max-tokens: needs --tokenizer, which makes the tokens")
        if self.exact and not (self.forecast or self.peer):
            raise UserError("--exact: goes with --forecast or --peer")

    @property
    def looks_ahead(self) -> bool:
        """Whether anything is asked about training."""
        return self.forecast or self.peer is not None
