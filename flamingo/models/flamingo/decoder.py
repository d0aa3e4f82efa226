"""Finding the decoder layers of any transformers LM, and putting cross-attention before them.

The list is found by structure: the outermost `ModuleList` with as many entries as the config has
hidden layers. Class names are not looked at, so an LM that nobody thought of works, and
`decoder_layers_attr_name` decides where structure does not.

Every entry is wrapped, also those without cross-attention: the LM's parameter names then differ
from the original in one regular way (`.decoder_layer`), which is OpenFlamingo's.
"""

from typing import Any

from torch import Tensor, nn

from flamingo.models.flamingo.context import MediaContext
from flamingo.models.flamingo.cross_attention import GatedCrossAttentionBlock
from flamingo.modules.compute import in_stored_type
from flamingo.modules.recompute import Recompute, run_block
from mmdata.errors import UserError


class ConditionedLayer(nn.Module):
    """One decoder layer, with cross-attention to the media in front of it or without.

    The layer's own arguments and output pass through untouched (a tensor in some LMs, a tuple in
    others). The context is read here, outside what is checkpointed: when the backward pass
    computes a block again, the call that set the context is over.
    """

    def __init__(
        self,
        decoder_layer: nn.Module,
        gated_cross_attn_layer: GatedCrossAttentionBlock | None,
        context: MediaContext,
    ) -> None:
        super().__init__()
        self.decoder_layer = decoder_layer
        self.gated_cross_attn_layer = gated_cross_attn_layer
        self.recompute: Recompute | None = None
        self._context = context

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        media = self._context.current
        block = self.gated_cross_attn_layer
        if block is not None:
            hidden_states = run_block(self.recompute, block, hidden_states, media)
        with in_stored_type(self.decoder_layer, hidden_states.device):
            return run_block(self.recompute, self.decoder_layer, hidden_states, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Attributes that an LM reads off its layers (`attention_type`…) are the layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "decoder_layer":
                raise
            return getattr(self.decoder_layer, name)


def condition_layers(
    layers: nn.ModuleList,
    *,
    every_n: int,
    text_width: int,
    latent_width: int,
    context: MediaContext,
) -> list[ConditionedLayer]:
    """Wraps all entries in place; cross-attention stands before layer i where (i+1) % n == 0."""
    if not 1 <= every_n <= len(layers):
        raise UserError(
            f"cross_attn_every_n_layers: expected 1 to {len(layers)} (the LM's layers), "
            f"got {every_n}"
        )
    wrapped = []
    for i, layer in enumerate(layers):
        if isinstance(layer, ConditionedLayer):
            raise UserError("this LM has cross-attention already; load a fresh one")
        block = None
        if (i + 1) % every_n == 0:
            block = GatedCrossAttentionBlock(text_width, latent_width)
        wrapped.append(ConditionedLayer(layer, block, context))
        layers[i] = wrapped[-1]
    return wrapped
