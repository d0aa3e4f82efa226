"""What a forward pass returns, and the loss of next-token prediction.

Dimensions: B samples, L positions, V vocabulary, n target positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import ModelOutput

IGNORED = -100
LossReduction = Literal["mean", "sum"]


@dataclass
class CausalOutput(ModelOutput):
    """A transformers output, so that FSDP finds the tensors in it."""

    loss: Tensor | None = None
    """Mean or sum over the target tokens, at least fp32; 0 when there is none. Of groups of targets
    one sum each."""
    num_targets: Tensor | None = None
    """Target tokens behind the loss, a 0-d tensor on the device."""
    logits: Tensor | None = None
    """(B, L, V), or (n, V) where only target positions were asked for; None where the loss was
    computed without them."""
    cache: Any = None
    """The LM's key-value cache, where it was asked for."""

    @property
    def past_key_values(self) -> Any:
        """The cache, under the name that transformers had for it until 5.23."""
        return self.cache


def find_target_positions(labels: Tensor) -> Tensor:
    """(B, L) labels -> (n,) flat positions b*L + t whose *next* token is a target.

    Meant for the CPU, where batches are made: on a GPU it waits for the device.
    """
    is_target = torch.zeros_like(labels, dtype=torch.bool)
    is_target[:, :-1] = labels[:, 1:] != IGNORED
    return is_target.flatten().nonzero().squeeze(1)


def next_token_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    reduction: LossReduction = "mean",
    target_positions: Tensor | None = None,
    groups: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss, number of targets) of unshifted labels (B, L); both 0-d tensors.

    With `groups`, numbers of positions that add up to all, the loss is one of each: (groups,).
    """
    targets = next_tokens(labels, target_positions)
    logits = logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32))
    return reduced(by_group(_cross_entropy, logits, targets, groups), targets, reduction)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def by_group(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    targets: Tensor,
    groups: Sequence[int] | None,
) -> Tensor:
    """The loss of all rows and their targets, 0-d; with `groups`, of so many each: (groups,)."""
    if groups is None:
        return loss_of(rows, targets)
    parts = zip(rows.split(list(groups)), targets.split(list(groups)), strict=True)
    return torch.stack([loss_of(row, target) for row, target in parts])


def next_tokens(labels: Tensor, target_positions: Tensor | None = None) -> Tensor:
    """Unshifted labels (B, L) -> the target of each position (B*L,), or of each given one (n,)."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
    return targets if target_positions is None else targets.index_select(0, target_positions)


def reduced(loss: Tensor, targets: Tensor, reduction: LossReduction) -> tuple[Tensor, Tensor]:
    """(a loss summed over targets, reduced; their number); both 0-d tensors."""
    num_targets = (targets != IGNORED).sum()
    return (loss / num_targets.clamp(min=1) if reduction == "mean" else loss), num_targets


def label_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of the probability of each row's targets, summed: (B,), at least fp32.

    Args:
        logits: (B, L, V).
        labels: (B, L), not shifted; -100 is no target.
    """
    targets = labels[:, 1:]
    scores = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    of_targets = scores.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return of_targets.masked_fill(targets == IGNORED, 0.0).sum(dim=1)
