"""What `mmdata generate` can be told, and what it shares with `mmdata export`."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least


@dataclass(frozen=True, kw_only=True)
class MovedOptions(Options):
    """Where the files that a trained model stands on are now."""

    section: ClassVar[str] = "Files that have moved"

    lm_path: str | None = None
    """Where the language model is now, if it has moved since the training."""
    vision_encoder_path: str | None = None
    """Where the vision encoder is now, if it has moved."""
    vision_encoder_pretrained: str | None = None
    """Where the vision encoder's weights are now, if they have moved."""
    offline: bool = False
    """Use no network at all."""

    def places(self) -> dict[str, str | None]:
        """Where parts of a model are now, by the options that name them; None: where they were."""
        named = ("lm_path", "vision_encoder_path", "vision_encoder_pretrained")
        return {name: getattr(self, name) for name in named}


@dataclass(frozen=True, kw_only=True)
class Generate(MovedOptions):
    """Write text for pictures with a trained model; several images make a few-shot prompt."""

    section: ClassVar[str] = "Model and prompt"

    checkpoint: str
    """A run's folder, or one of its checkpoints."""
    prompt: str
    """Text with one <image> for each --image, as in "<image>An image of"."""
    image: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Pictures, in the order of the prompt's <image> tags; repeat the option."""
    max_new_tokens: int = 20
    """Tokens to write, at most."""
    num_beams: int = 1
    """Beams of the search; 1 is greedy."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""

    def _check(self) -> None:
        tags = self.prompt.count("<image>")
        if tags != len(self.image):
            raise UserError(
                f"--prompt has {tags} <image> tags and there are {len(self.image)} --image: "
                "expected one for each"
            )
        check_least(self, 1, "max_new_tokens", "num_beams")
