"""Which parts of a model train: their parameters, and the mode that they are in.

What a family adds always trains. The vision tower and the LM are frozen unless they are left out of
`freeze`; then all of the part trains that its output comes from. A frozen part stays in eval mode:
with dropout it would train the rest against noise that is absent at inference.
"""

from collections.abc import Collection, Sequence

from torch import nn

from flamingo.modules.vision import train_tower

#: The parts that can be frozen, and are unless said otherwise.
FROZEN = ("vision", "lm")


def is_adapter(name: str) -> bool:
    """Whether a part of the LM is a LoRA adapter: those train, and drop out, as they were made."""
    return any(part.startswith("lora_") for part in name.split("."))


def free_parts(tower: nn.Module, lang_encoder: nn.Module, freeze: Collection[str]) -> None:
    """Set what trains of a frozen tower, and of an LM as it was made: adapters as they are.

    Args:
        tower: the vision tower.
        lang_encoder: the LM, with its adapters if it has any.
        freeze: those of `vision` and `lm` that stay as they are.
    """
    for name, parameter in lang_encoder.named_parameters():
        trains = is_adapter(name) and parameter.requires_grad
        parameter.requires_grad_(trains or "lm" not in freeze)
    if "vision" not in freeze:
        train_tower(tower)


def keep_in_eval(
    tower: nn.Module,
    lang_encoder: nn.Module,
    own_parts: Sequence[nn.Module],
    freeze: Collection[str],
    *,
    mode: bool,
) -> None:
    """Put frozen parts in eval mode, and what trains inside the LM in `mode`.

    Args:
        tower: the vision tower.
        lang_encoder: the LM.
        own_parts: modules inside the LM that are not its own.
        freeze: those of `vision` and `lm` that stay as they are.
        mode: whether the model trains.
    """
    if "vision" in freeze:
        tower.eval()
    if "lm" not in freeze:
        return
    lang_encoder.eval()
    adapters = (module for name, module in lang_encoder.named_modules() if is_adapter(name))
    for part in (*own_parts, *adapters):
        part.train(mode)
