"""What `mmdata generate` can be told."""

from dataclasses import dataclass, field

from mmdata.errors import UserError
from mmdata.option_checks import check_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Write text for pictures with a trained model; several images make a few-shot prompt."""

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
    lm_path: str | None = None
    """Where the language model is now, if it has moved since the training."""
    vision_encoder_path: str | None = None
    """Where the vision encoder is now, if it has moved."""
    vision_encoder_pretrained: str | None = None
    """Where its weights are now, if they have moved."""
    offline: bool = False
    """No network at all."""

    def __post_init__(self) -> None:
        tags = self.prompt.count("<image>")
        if tags != len(self.image):
            raise UserError(
                f"--prompt has {tags} <image> tags and there are {len(self.image)} --image: "
                "expected one for each"
            )
        check_least(self, 1, "max_new_tokens", "num_beams")
