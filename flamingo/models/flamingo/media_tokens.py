"""The rows of `<|endofchunk|>` and `<image>` as parameters of their own.

Training two rows of a frozen matrix through a gradient mask keeps optimizer state for 50k rows
that never move, and does not survive sharding. Here the two rows are a (2, D) parameter, and two
hooks put them where the LM would read its own:

- behind the input embedding, in place of the rows looked up;
- behind the output head, in place of the two logit columns. With a tied LM these are the input
  rows again (without it 80% of their gradient is lost); with an untied one a second parameter.

Hooks rather than wrapped modules: the LM's parameter names, its tying, `save_pretrained` and
adapters see what they always see. The cost is one `where` over the embeddings.

Dimensions: B samples, L positions, V vocabulary rows, D embedding width.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo.models.flamingo.context import MediaContext
from flamingo.modules.chunked_loss import ReplacedRows
from flamingo.modules.language_model import _normal, embedding_and_head
from flamingo.modules.placement import assign, assign_rows, row_mean
from mmdata.errors import UserError


class MediaTokenRows(nn.Module):
    """Row 0 is `<|endofchunk|>`, row 1 `<image>`: the order in which the ids were given out."""

    def __init__(
        self,
        lang_encoder: nn.Module,
        *,
        eoc_token_id: int,
        media_token_id: int,
        context: MediaContext,
    ) -> None:
        super().__init__()
        self.token_ids = (eoc_token_id, media_token_id)
        self._context = context
        embedding, head = embedding_and_head(lang_encoder)
        _check_rows(embedding.weight, self.token_ids)
        self._scale_of = _embedding_scale(embedding)
        self.tied = embedding.weight is head.weight
        self.input_rows = _own_rows(embedding.weight)
        self.output_rows = None if self.tied else _own_rows(head.weight)
        embedding.register_forward_hook(self._replace_looked_up)
        head.register_forward_pre_hook(self._keep_targets)
        head.register_forward_hook(self._replace_logits)

    def of_head(self) -> ReplacedRows:
        """What stands in place of rows of the output head."""
        rows = self.input_rows if self.output_rows is None else self.output_rows
        return ReplacedRows(self.token_ids, rows)

    def _replace_looked_up(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        """ids (B, L) and their embeddings (B, L, D) -> (B, L, D) with our rows in it."""
        ids: Tensor = args[0]
        is_media = ids == self.token_ids[1]
        # Looked up for every position, so that both rows are in the graph of every pass.
        rows = F.embedding(is_media.long(), self.input_rows)
        if self._scale_of is not None:
            rows = rows * getattr(module, self._scale_of)
        ours = (is_media | (ids == self.token_ids[0])).unsqueeze(-1)
        return torch.where(ours, rows.to(out.dtype), out)

    def _keep_targets(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """With target positions given, the head computes only those: (B, L, D) -> (n, D)."""
        positions = self._context.target_positions
        if positions is None:
            return None
        hidden = args[0].flatten(0, 1).index_select(0, positions)
        return (hidden, *args[1:])

    def _replace_logits(self, module: nn.Module, args: tuple[Any, ...], logits: Tensor) -> Tensor:
        """(…, D) and logits (…, V) -> the logits with our two columns in place."""
        rows = self.of_head().rows
        first, second = self.token_ids
        # Made on the device: a copy from the host would stall it in every pass.
        columns = torch.arange(2, device=logits.device) * (second - first) + first
        bias = getattr(module, "bias", None)
        ours = F.linear(
            args[0], rows.to(args[0].dtype), None if bias is None else bias[columns].to(args[0])
        )
        # In place: a second copy of the logits would be the largest tensor of the step. Nothing
        # needs the old columns, a linear layer does not save its output.
        return logits.index_copy_(-1, columns, ours.to(logits.dtype))


def initialise_rows(
    rows: MediaTokenRows, lang_encoder: nn.Module, *, mode: str, seed: int, num_known_rows: int
) -> None:
    """Initial values: 'normal' is N(0, 0.02) from the seed alone, 'mean' the mean of the
    `num_known_rows` rows that the LM was trained with."""
    if mode not in ("normal", "mean"):
        raise UserError(f"new_token_init: expected 'normal' or 'mean', got {mode!r}")
    embedding, head = embedding_and_head(lang_encoder)
    generator = torch.Generator().manual_seed(seed)
    pairs = [(rows.input_rows, embedding.weight)]
    if rows.output_rows is not None:
        pairs.append((rows.output_rows, head.weight))
    for own, weight in pairs:
        if mode == "normal":
            assign(own, _normal(own.shape, generator))
        else:
            mean = row_mean(weight, num_known_rows)
            assign(own, mean.expand_as(own))
        # What the matrix holds there is never read; zero, so that no chance value stays.
        for row in rows.token_ids:
            assign_rows(weight, row, torch.zeros(1, weight.shape[1]))


def _own_rows(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.zeros(2, weight.shape[1], device=weight.device))


def _check_rows(weight: Tensor, token_ids: tuple[int, int]) -> None:
    if max(token_ids) >= weight.shape[0]:
        raise UserError(
            f"the LM's vocabulary: expected rows for the ids {token_ids}, got {weight.shape[0]} "
            "rows; resize it to the tokenizer first"
        )


def _embedding_scale(embedding: nn.Module) -> str | None:
    """Name of the factor that the embedding multiplies its rows with (Gemma 3), if it has one."""
    name = "embed_scale" if hasattr(embedding, "embed_scale") else None
    weight = cast(Tensor, embedding.weight)
    if type(embedding).forward is nn.Embedding.forward:
        return None
    if not weight.is_meta:
        scale = 1.0 if name is None else getattr(embedding, name)
        with torch.no_grad():
            got = embedding(torch.zeros(1, 1, dtype=torch.long, device=weight.device))[0, 0]
        if not torch.allclose(got, (weight[0] * scale).to(got.dtype)):
            raise UserError(
                f"{type(embedding).__name__}: expected an embedding that returns its rows, scaled "
                "at most; its media-token rows cannot be trained on their own"
            )
    return name
