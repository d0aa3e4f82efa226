"""The facts that have to agree between a model and its checkpoint."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What has to agree between a model and its checkpoint; recorded in the checkpoint."""

    family: str
    """`model_type` of the LM's config."""
    hidden_size: int
    num_layers: int
    vision_width: int
    cross_attn_every_n_layers: int
    rows: int
    """Of the embedding matrix, after resizing to the tokenizer."""
    special_tokens: dict[str, int]
    tokenizer_sha256: str
    lm_sha256: str | None = None
    """None where the weights were not at hand when it was made."""
    adapters: dict[str, Any] | None = None
    """`AdapterSettings.record` of the LoRA adapters in the LM; None without."""

    def record(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
