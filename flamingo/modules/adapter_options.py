"""What `mmdata train` can be told about LoRA adapters; the standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from flamingo.modules.adapter_settings import AdapterSettings, split_targets
from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least, flag_of


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Options):
    """Adapters in the language model."""

    section: ClassVar[str] = "Adapters of the language model"

    lm_adapter: Literal["none", "lora", "qlora"] = "none"
    """Train low-rank adapters in the frozen language model; qlora: above weights of 4 bits."""
    lora_r: int = 16
    """Rank of the adapters' product."""
    lora_alpha: float = 32.0
    """An adapter counts alpha / r times."""
    lora_dropout: float = 0.0
    """Share of an adapter's inputs left out while training (0 to 1)."""
    lora_targets: str | None = None
    """Layers that get an adapter, as q_proj,v_proj, or all-linear. Default: the attention's."""

    def _check(self) -> None:
        check_least(self, 1, "lora_r")
        if self.lora_alpha <= 0:
            raise UserError(f"--lora-alpha {self.lora_alpha:g}: expected more than 0")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"--lora-dropout {self.lora_dropout:g}: expected 0 to below 1")
        split_targets(self.lora_targets)
        if self.lm_adapter == "none":
            for column in fields(AdapterOptions):
                if getattr(self, column.name) != column.default:
                    raise UserError(f"{flag_of(column.name)} goes with --lm-adapter lora or qlora")


def settings_of(options: AdapterOptions) -> AdapterSettings | None:
    """The adapters that the options ask for; None without."""
    if options.lm_adapter == "none":
        return None
    return AdapterSettings(
        kind=options.lm_adapter,
        r=options.lora_r,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        targets=split_targets(options.lora_targets),
    )


def check_same_adapters(saved: Mapping[str, Any], options: AdapterOptions, checkpoint: str) -> None:
    """Whether a run can go on with these adapters.

    Args:
        saved: options of the run when it wrote the checkpoint; those before adapters have none.
        options: of this start.
        checkpoint: for the message.

    Raises:
        UserError: it was written with others. What targets a family has is found out later.
    """
    had, wants = saved.get("lm_adapter", "none"), options.lm_adapter
    if had != wants:
        raise UserError(
            f"checkpoint {checkpoint}: was written with --lm-adapter {had}, not {wants}; give the "
            "same to go on, or start another --run-name from it by --init-from"
        )
