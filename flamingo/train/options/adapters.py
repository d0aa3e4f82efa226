"""What `mmdata train` can be told about LoRA adapters; the standard library only."""

from dataclasses import dataclass
from typing import Any, Literal

from flamingo.modules.adapter_settings import AdapterSettings, split_targets
from mmdata.errors import UserError


# Without slots: a class of options may have several parents, of which Python lets one have them.
@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Adapters in the language model."""

    lm_adapter: Literal["none", "lora", "qlora"] = "none"
    """Train low-rank adapters in the frozen language model; qlora: above weights of 4 bits."""
    lora_r: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 32.0
    """An adapter counts alpha / r times."""
    lora_dropout: float = 0.0
    """Share of an adapter's inputs left out while training (0 to 1)."""
    lora_targets: str | None = None
    """Layers that get an adapter, as q_proj,v_proj, or all-linear. Default: the attention's."""


def check_adapters(options: AdapterOptions) -> None:
    """Whether the options make sense.

    Raises:
        UserError: they do not; in one line.
    """
    if options.lora_r < 1:
        raise UserError(f"--lora-r {options.lora_r}: expected at least 1")
    if options.lora_alpha <= 0:
        raise UserError(f"--lora-alpha {options.lora_alpha:g}: expected more than 0")
    if not 0 <= options.lora_dropout < 1:
        raise UserError(f"--lora-dropout {options.lora_dropout:g}: expected 0 to below 1")
    split_targets(options.lora_targets)
    if options.lm_adapter == "none":
        plain = AdapterOptions()
        for name in ("lora_r", "lora_alpha", "lora_dropout", "lora_targets"):
            if getattr(options, name) != getattr(plain, name):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} goes with --lm-adapter lora or qlora")


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


def check_same_adapters(saved: dict[str, Any], options: AdapterOptions, checkpoint: str) -> None:
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
