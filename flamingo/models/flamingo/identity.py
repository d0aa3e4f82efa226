"""The facts that have to agree between a model and its checkpoint."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from flamingo.models.flamingo.options import NAME
from flamingo.modules.checkpoint_files import FAMILY_KEY


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The facts of a model; a checkpoint records them."""

    family: str
    """Family of language models: `model_type` of the LM's config."""
    hidden_size: int
    num_layers: int
    vision_width: int
    cross_attn_every_n_layers: int
    rows: int
    """Rows of the embedding matrix, after resizing to the tokenizer."""
    special_tokens: dict[str, int]
    tokenizer_sha256: str
    lm_sha256: str | None = None
    """None where the weights were not at hand when it was made."""
    adapters: dict[str, Any] | None = None
    """`AdapterSettings.record` of the LoRA adapters in the LM; None without."""

    def record(self) -> dict[str, Any]:
        """The facts as JSON, with the family of models that they are of."""
        return {FAMILY_KEY: NAME} | dataclasses.asdict(self)
