"""What a command that scores pictures with CLIP can be told of it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import check_least
from pipelines.engine.options import WorkerOptions

ClipDevice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class ClipOptions(WorkerOptions):
    """The CLIP that scores, the same in every command that has one."""

    section: ClassVar[str] = "Similarities by CLIP"

    clip_model: str | None = None
    """CLIP that computes similarities: of open_clip (ViT-L-14), local-dir:PATH or hf-hub:NAME."""
    clip_pretrained: str | None = None
    """Weights of the CLIP: a tag of open_clip (openai) or a file; not for local-dir and hf-hub."""
    min_similarity: float | None = None
    """Drop images whose similarity to their sentence is below this (-1 to 1)."""
    clip_batch_size: int = 64
    """Images, and sentences, in every batch of the CLIP."""
    clip_device: ClipDevice = "auto"
    """Where the CLIP computes; auto: on a GPU where torch sees one."""
    clip_actors: int | None = None
    """Ray actors that hold the CLIP. Default: one a GPU; on a CPU none, every worker holds it."""

    def _check(self) -> None:
        if self.min_similarity is not None and not -1.0 <= self.min_similarity <= 1.0:
            guess = f": did you mean {self.min_similarity / 100:g}?"
            raise UserError(
                f"--min-similarity {self.min_similarity:g}: similarities are cosines, -1 to 1"
                + (guess if 1 < self.min_similarity <= 100 else "")
            )
        check_least(self, 1, "clip_batch_size")
        if self.clip_model is None and self.clip_pretrained is not None:
            raise UserError(f"--clip-pretrained {self.clip_pretrained}: expected --clip-model too")
        check_least(self, 0, "clip_actors")
        if self.clip_actors and self.workers == 0:
            raise UserError("--clip-actors: actors are Ray's: leave it out with --workers 0")
