"""What a stream of training data can be told. Standard library only: `--help` loads no torch."""

from dataclasses import dataclass
from typing import Literal

from mmdata.errors import UserError
from mmdata.training_view import defaults

Rule = Literal["auto", "interleaved", "caption"]
Surplus = Literal["drop", "argmax"]
LongDocuments = Literal["truncate", "chunk"]

#: A caption's own: begin, `<image>`, one token of text, `<|endofchunk|>`, end.
MIN_TOKENS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """One stream of samples: where it comes from, what is used of it, and how."""

    name: str
    """The stream's name, in logs and in the seed of its order."""
    shards: tuple[str, ...]
    """Folders, globs, {000..041} ranges or tars; ours, OpenFlamingo's or img2dataset's."""
    rule: Rule = "auto"
    """interleaved: documents; caption: one image and its text. auto: as the manifest says."""
    batch_size: int = 8
    """Samples of a micro-batch."""
    global_batch_size: int | None = None
    """B: samples of a step on all ranks. Default: a micro-batch a rank."""
    lanes: int | None = None
    """G: parts of the shards that are read side by side; divides B. Default: B."""
    resampled: bool = False
    """Draw shards with replacement instead of reading each once an epoch."""
    max_bad_fraction: float = 0.01
    """Share of damaged samples above which the run stops (judged over 1,000 at least)."""
    max_tokens: int | None = None
    """Tokens of a sample at most. Default: 256 interleaved, 32 captions."""
    image_size: int = 224
    """Pixels of the square that the model sees."""
    shuffle_shards: int = 8
    """Shards of a lane whose samples are shuffled together."""
    min_similarity: float = defaults.MIN_SIMILARITY
    """Interleaved: drop images whose similarity to their sentence is below this (0 to 1)."""
    min_image_bytes: int = defaults.MIN_IMAGE_BYTES
    """Interleaved: drop images whose file is smaller, in bytes."""
    max_images: int = defaults.MAX_IMAGES
    """Interleaved: images of a document at most."""
    min_images: int = defaults.MIN_IMAGES
    """Interleaved: drop documents with fewer images."""
    keep_single_image: float = defaults.KEEP_SINGLE_IMAGE
    """Interleaved: share of the documents with one image that is kept (0 to 1)."""
    surplus: Surplus = "drop"
    """Interleaved: what becomes of images that outnumber the sentences."""
    long_documents: LongDocuments = "truncate"
    """Interleaved: documents of more tokens or images than fit are cut off, or cut into several
    samples."""
    pack_tokens: int | None = None
    """Several samples in one sequence of so many tokens; None: each has its own."""
    random_flip: bool = False
    """Mirror each image with probability 1/2. Mirrored pictures have mirrored writing and turn
    left into right in captions; OpenFlamingo does it, a whole document or batch at a time."""
    exact_preprocess: bool = False
    """Pixels equal to open_clip's bit for bit, at half the speed; else within 2 of 255."""
    features: str | None = None
    """Folder of what `mmdata features` wrote for these shards: no image is decoded."""
    decode_threads: int = 4
    """Threads that decode images; 0: none, decode where the batch is asked for."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "shuffle_shards", "lanes", "global_batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"stream {self.name}: {name}: expected at least 1")
        if self.decode_threads < 0:
            raise UserError(f"stream {self.name}: decode_threads: expected at least 0")
        if self.random_flip and self.features is not None:
            raise UserError(
                f"stream {self.name}: random_flip: precomputed features cannot be mirrored; turn "
                "it off, or train from pixels"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise UserError(f"stream {self.name}: max_bad_fraction: expected 0 to 1")
        if self.max_tokens is not None and self.max_tokens < MIN_TOKENS:
            raise UserError(f"stream {self.name}: max_tokens: expected at least {MIN_TOKENS}")
