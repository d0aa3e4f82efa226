"""What LoRA adapters in the LM are like; the standard library only.

Default targets are the attention's projections, by the names that each family gives them: adapters
there cost least for what they bring, and no family's attention is forgotten because another calls
it differently. Names count from the end (`q_proj`, `attn.c_proj`), within a decoder layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mmdata.errors import UserError

Kind = Literal["lora", "qlora"]
ALL_LINEAR = "all-linear"

_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj")
_GPTJ = ("q_proj", "k_proj", "v_proj", "out_proj")
#: `model_type` of the LM's config -> its attention's projections.
DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "gemma3_text": _LLAMA,
    "gpt2": ("attn.c_attn", "attn.c_proj"),
    "gpt_neo": _GPTJ,
    "gpt_neox": ("query_key_value", "attention.dense"),
    "gptj": _GPTJ,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mpt": ("Wqkv", "out_proj"),
    "opt": _GPTJ,
    "phi3": ("qkv_proj", "o_proj"),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """Adapters of one kind, the same in every layer of the LM that is named.

    Attributes:
        kind: qlora: the matrices of the LM's layers are kept in NF4, 4 bits a weight.
        r: rank of an adapter's product.
        alpha: the product counts alpha / r times.
        dropout: share of an adapter's inputs that is left out, in training.
        targets: names of layers, from their end, or `all-linear` alone; none: the family's.
    """

    kind: Kind
    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    @property
    def is_quantised(self) -> bool:
        """Whether the LM's matrices are in NF4."""
        return self.kind == "qlora"

    def resolved(self, family: str) -> "AdapterSettings":
        """With the targets of a family where none are named.

        Raises:
            UserError: there are none for this family.
        """
        if self.targets:
            return self
        if family not in DEFAULT_TARGETS:
            raise UserError(
                f"--lm-adapter {self.kind}: no default targets for the family {family}; name "
                f"layers by --lora-targets, or --lora-targets {ALL_LINEAR}"
            )
        return replace(self, targets=DEFAULT_TARGETS[family])

    def record(self) -> dict[str, Any]:
        """For a checkpoint: what decides which tensors there are and what they mean.

        The dropout is no part of it: another one fits the same weights.
        """
        return {
            "kind": self.kind,
            "r": self.r,
            "alpha": self.alpha,
            "targets": sorted(self.targets),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> "AdapterSettings | None":
        """The settings in a checkpoint's `identity.json`; None where it has no adapters.

        Raises:
            UserError: it is not such a record.
        """
        found = None if record is None else record.get("adapters")
        if found is None:
            return None
        try:
            return cls(
                kind=found["kind"],
                r=found["r"],
                alpha=found["alpha"],
                targets=tuple(found["targets"]),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"checkpoint: adapters {found!r}: not of this version") from error


def tell(record: Mapping[str, Any] | None) -> str:
    """A record of adapters as a person reads it."""
    if record is None:
        return "none"
    return (
        f"{record['kind']} r={record['r']} alpha={record['alpha']:g} on "
        f"{' '.join(record['targets'])}"
    )


def split_targets(text: str | None) -> tuple[str, ...]:
    """`q_proj,v_proj` to names.

    Raises:
        UserError: a name is empty, or `all-linear` stands beside others.
    """
    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in names or (ALL_LINEAR in names and len(names) > 1):
        raise UserError(
            f"--lora-targets {text}: expected names of layers with commas between them, or "
            f"{ALL_LINEAR} alone"
        )
    return names


def check_merge(
    run: str, *, has_adapters: bool, merge: bool, format: str, holds_adapters: bool
) -> None:
    """Whether an export leaves adapters where there is a place for them.

    Args:
        run: whose adapters these are, for the message.
        has_adapters: whether it has any.
        merge: whether they are put into the language model.
        format: of the weights, for the message.
        holds_adapters: whether it has a place for them.

    Raises:
        UserError: there are none to merge, or no place for them.
    """
    if merge and not has_adapters:
        raise UserError(f"--merge-lora: {run} has no LoRA adapters; leave it out")
    if has_adapters and not merge and not holds_adapters:
        raise UserError(
            f"--format {format}: has no place for LoRA adapters; --merge-lora puts them into the "
            "language model, and --format safetensors keeps them"
        )
