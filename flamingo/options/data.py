"""What a run can be told of the data that it trains on; the standard library only."""

from dataclasses import dataclass, field
from typing import ClassVar

from flamingo.data.config import LongDocuments, Rule, Surplus
from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least
from mmdata.training_view import defaults


@dataclass(frozen=True, kw_only=True)
class StreamOptions(Options):
    """The streams that a run trains on, and how much of each stands in a batch."""

    section: ClassVar[str] = "Data"

    mmc4_shards: str | None = None
    """Interleaved shards: a folder, a glob or a {000..041} range."""
    laion_shards: str | None = None
    """Caption shards: a folder, a glob or a range, also of img2dataset's tars."""
    batch_size_mmc4: int = 8
    """Documents of the interleaved stream in a micro-batch."""
    batch_size_laion: int = 8
    """Pairs of the caption stream in a micro-batch."""
    loss_multiplier_mmc4: float = 1.0
    """Weight of the interleaved stream's loss."""
    loss_multiplier_laion: float = 1.0
    """Weight of the caption stream's loss."""
    train_num_samples_mmc4: int | None = None
    """Documents in what counts as an epoch; with --num-epochs gives the run's length."""
    train_num_samples_laion: int | None = None
    """Pairs in what counts as an epoch; with --num-epochs gives the run's length."""
    stream: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """name=SHARDS: another stream to train on; repeat the option. SHARDS is a folder, a glob, a
    range, a manifest, a list (.txt), s3://… or pipe:COMMAND. `streams:` in a --config file."""
    stream_opt: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """name.key=value: an option of one stream, as batch_size, rule, min_similarity, lanes."""
    mix: str | None = None
    """name=share,…: one batch shared by all streams, in place of a batch of each."""
    batch_size: int | None = None
    """Samples of a micro-batch that --mix shares out. Default: the streams' batches added up."""

    def _check(self) -> None:
        check_least(self, 1, "batch_size_mmc4", "batch_size_laion", "batch_size")
        check_least(self, 1, "train_num_samples_mmc4", "train_num_samples_laion")
        check_least(self, 0, "loss_multiplier_mmc4", "loss_multiplier_laion")
        if self.batch_size is not None and self.mix is None:
            raise UserError("--batch-size goes with --mix; use --batch-size-mmc4, --stream-opt, …")


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(Options):
    """What is used of documents and captions, and how they become sequences."""

    section: ClassVar[str] = "What is used of a document"

    mmc4_textsim_threshold: float = defaults.MIN_SIMILARITY
    """Images whose similarity to their sentence is below this are left out (0 to 1)."""
    mmc4_max_num_images: int = defaults.MAX_IMAGES
    """Images of a document that are used, at most."""
    mmc4_min_num_images: int = defaults.MIN_IMAGES
    """Documents with fewer images are left out."""
    mmc4_min_image_bytes: int = defaults.MIN_IMAGE_BYTES
    """Images whose file is smaller are left out, in bytes."""
    mmc4_max_tokens: int = defaults.MAX_DOCUMENT_TOKENS
    """Tokens of a document, at most."""
    laion_max_tokens: int = defaults.MAX_CAPTION_TOKENS
    """Tokens of a caption, at most."""
    keep_single_image: float = defaults.KEEP_SINGLE_IMAGE
    """Share of documents with a single image that is used, drawn from (seed, epoch, key)."""
    surplus: Surplus = "drop"
    """Images that outnumber the sentences: left out, or at their best sentence."""
    long_documents: LongDocuments = "truncate"
    """Documents of more tokens or images than fit: cut off, or cut into several samples."""
    pack: bool = False
    """Several samples in one sequence, each by itself; batch sizes then count sequences."""
    pack_tokens: int = 1024
    """Tokens of a sequence with --pack."""
    mmc4_rule: Rule = "auto"
    """How the interleaved stream is read: auto looks at the manifest, then at the first sample."""
    laion_rule: Rule = "auto"
    """How the caption stream is read: auto looks at the manifest, then at the first sample."""

    def _check(self) -> None:
        check_least(self, 1, "mmc4_max_num_images", "mmc4_min_num_images", "mmc4_max_tokens")
        check_least(self, 1, "laion_max_tokens", "pack_tokens")
        check_least(self, 0, "mmc4_min_image_bytes")
        if self.mmc4_textsim_threshold > 1:
            guess = self.mmc4_textsim_threshold / 100
            raise UserError(
                f"--mmc4-textsim-threshold {self.mmc4_textsim_threshold:g}: similarities are 0 to "
                f"1: did you mean {guess:.2f}?"
            )
        if not 0 <= self.keep_single_image <= 1:
            raise UserError(f"--keep-single-image {self.keep_single_image}: expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(Options):
    """How shards are read and shuffled, and pictures decoded."""

    section: ClassVar[str] = "Reading and decoding"

    workers: int | None = None
    """Threads that decode a stream's images; 0: none beside the trainer's own. Without it 1, and on
    a GPU this rank's share of the host's processors, less one, at most 16."""
    shuffle_shards: int = 8
    """Shards in the window that samples are shuffled in."""
    dataset_resampled: bool = False
    """Draw shards with replacement, instead of reading each once an epoch."""
    random_flip: bool = False
    """Mirror each image with probability 1/2; not where text is in the pictures."""
    exact_preprocess: bool = False
    """Pixels as open_clip's own transform gives them, bit for bit; half as fast."""
    mmc4_features: str | None = None
    """Folder that `mmdata features` wrote for the interleaved stream: no decoding, no tower."""
    laion_features: str | None = None
    """Folder that `mmdata features` wrote for the caption stream: no decoding, no tower."""
    max_bad_fraction: float = 0.01
    """Share of damaged samples above which the run stops (judged over 1,000 at least)."""
    cache_dir: str | None = None
    """Folder where shards of a store are kept while they are needed; for all ranks of a host."""
    cache_gb: float = 100.0
    """Size of the folder of --cache-dir at most, in GB."""

    def _check(self) -> None:
        check_least(self, 1, "shuffle_shards")
        check_least(self, 0, "workers", "cache_gb")


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(Options):
    """The streams that the loss is measured on."""

    section: ClassVar[str] = "Validation loss"

    val_stream: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """name=SHARDS: a stream to measure the loss on, every sample once; repeat the option."""
    val_every: int | None = None
    """Steps between measurements; without it before the first step and at the end only."""

    def _check(self) -> None:
        check_least(self, 1, "val_every")


@dataclass(frozen=True, kw_only=True)
class DataOptions(StreamOptions, SelectionOptions, ReadingOptions, ValidationOptions):
    """All that a run can be told of its data."""
