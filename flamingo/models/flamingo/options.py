"""What a run can be told of the model Flamingo; the standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from flamingo.modules.adapter_options import AdapterOptions
from flamingo.options.combinations import Refusal, check_combinations, has_features
from flamingo.options.data import DataOptions
from flamingo.options.optimisation import OptimisationOptions
from flamingo.options.run import RunOptions
from flamingo.options.telemetry import TelemetryOptions
from mmdata.option_checks import check_least

#: The family's, by which runs, checkpoints and exports name it.
NAME = "flamingo"
REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "--lm-adapter with an LM that --freeze lets train",
        "adapters are there to keep the LM as it is",
        "--freeze lm or vision,lm, or leave out --lm-adapter",
        lambda o: o.lm_adapter != "none" and "lm" not in o.freeze,
    ),
    Refusal(
        "--cpu-offload params with --lm-adapter qlora",
        "matrices of 4 bits stay on the device, where they are small",
        "--cpu-offload optimizer, or --lm-adapter lora",
        lambda o: o.cpu_offload == "params" and o.lm_adapter == "qlora",
    ),
    Refusal(
        "--freeze lm or none with precomputed features",
        "a vision tower that trains gives other features after every step",
        "--freeze vision or vision,lm, or streams of pictures",
        lambda o: "vision" not in o.freeze and has_features(o),
    ),
)


@dataclass(frozen=True, kw_only=True)
class FlamingoOptions(AdapterOptions):
    """The model that is trained: its parts, and which of them train."""

    section: ClassVar[str] = "Model"

    lm_path: str
    """Language model: a folder, or a name on the hub."""
    vision_encoder_path: str = "ViT-L-14"
    """Vision encoder: a model of open_clip, or a folder with its config and weights."""
    vision_encoder_pretrained: str | None = "openai"
    """Weights of the vision encoder: a tag of open_clip, or a file."""
    cross_attn_every_n_layers: int = 1
    """Cross-attention stands before every n-th decoder block."""
    freeze: Literal["vision,lm", "vision", "lm", "none"] = "vision,lm"
    """Parts that do not train; none: full fine-tuning."""
    tokenizer_path: str | None = None
    """Tokenizer: a folder, or a name on the hub. Default: the language model's own."""
    vision_tokens: Literal["pre_norm", "post_norm"] = "pre_norm"
    """Patch tokens before or after the tower's last norm (released models: before)."""
    vision_chunk: int = 64
    """Images that go through the vision tower at once."""
    freeze_lm_embeddings: bool = False
    """Keep the input rows of the two media tokens at their initial values (with a tied LM these are
    the output rows too). Without it they train, as in OpenFlamingo."""
    new_token_init: Literal["normal", "mean"] = "normal"
    """First values of the media tokens' rows: N(0, 0.02) from the seed, or the mean of all rows."""
    train_output_rows: bool = False
    """Train the output rows of the media tokens too, where the LM does not tie them. OpenFlamingo
    never does; a run that began with them goes on with them."""
    loss_kernel: Literal["auto", "plain", "chunked", "torch", "liger"] = "auto"
    """How the loss is computed. plain: from the logits of all targets; chunked: from those of some
    targets at a time; torch, liger: by their functions for it, the second on GPUs alone; auto:
    chunked where there are targets for more than one chunk, else plain."""
    trust_remote_code: bool = False
    """Run code that comes with a model from the hub."""

    def _check(self) -> None:
        check_least(self, 1, "cross_attn_every_n_layers", "vision_chunk")


# The order of the sections is that of `--help`.
@dataclass(frozen=True, kw_only=True)
class Train(
    RunOptions,
    DataOptions,
    FlamingoOptions,
    OptimisationOptions,
    AdapterOptions,
    TelemetryOptions,
):
    """Train a Flamingo model from shards: one process, or one a GPU."""

    family: ClassVar[str] = NAME

    def _check(self) -> None:
        check_combinations(self, REFUSALS)

    def extras(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """The packages of LoRA, where the language model gets adapters."""
        if self.lm_adapter == "none":
            return []
        packages = ("peft", "torchao") if self.lm_adapter == "qlora" else ("peft",)
        return [("lora", f"--lm-adapter {self.lm_adapter}", packages)]
