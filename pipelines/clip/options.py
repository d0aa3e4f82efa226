"""What a command that scores pictures with CLIP can be told of it."""

from typing import Literal, Protocol

from mmdata.errors import UserError
from mmdata.option_checks import at_least

ClipDevice = Literal["auto", "cpu", "cuda"]


class ClipOptions(Protocol):
    """Options of the CLIP that scores, the same in every command that has them."""

    @property
    def clip_model(self) -> str | None: ...
    @property
    def clip_pretrained(self) -> str | None: ...
    @property
    def clip_batch_size(self) -> int: ...
    @property
    def clip_device(self) -> ClipDevice: ...
    @property
    def clip_actors(self) -> int | None: ...


def check_clip(options: ClipOptions, workers: int | None) -> None:
    """Refuse options of CLIP that make no sense."""
    at_least(options.clip_batch_size, 1, "--clip-batch-size")
    if options.clip_model is None and options.clip_pretrained is not None:
        raise UserError(f"--clip-pretrained {options.clip_pretrained}: expected --clip-model too")
    if options.clip_actors is not None:
        at_least(options.clip_actors, 0, "--clip-actors")
        if options.clip_actors and workers == 0:
            raise UserError("--clip-actors: actors are Ray's: leave it out with --workers 0")
