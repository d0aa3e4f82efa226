"""Packed sequences: several documents in a row of tokens, none of which sees another.

An LM is told of them in one of two ways. `positions`: position ids that start anew, from which
transformers itself finds the documents and makes the mask, sliding windows included; some LMs
ignore them (OPT, MPT). `mask`: the mask as well, one square a sequence; some LMs with sliding
windows would lose these. Which one an LM understands is not written anywhere, so it is tried: a few
random documents go through it packed and alone, and the first way that gives the same logits is
taken. An LM that neither works for (a recurrent one has a state that no mask stops) is refused,
instead of training on documents that leak into each other.

Cost of a mask: B·L² values a pass, and scores between documents that are computed and discarded.

Dimensions: B sequences, L positions.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdata.errors import UserError

_LENGTHS = (11, 1, 7, 5)
#: Of the spread of logits: far above the rounding of float32 and bfloat16, far below a leak, which
#: changes them by their spread.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_COARSE_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Packing:
    """How an LM keeps packed documents apart.

    Attributes:
        way: what it understands.
        dtype: of a mask.
    """

    way: Literal["positions", "mask"]
    dtype: torch.dtype

    def text_arguments(self, document_index: Tensor) -> tuple[Tensor | None, Tensor]:
        """Documents (B, L), -1 for padding -> attention mask for the LM, position ids (B, L).

        Padding is a document of its own, whose logits nobody reads.
        """
        positions = restarted(document_index)
        if self.way == "positions":
            return None, positions
        same = document_index.unsqueeze(2) == document_index.unsqueeze(1)  # (B, L, L)
        seen = same & torch.ones_like(same[0]).tril()
        # Numbers, not booleans: LMs that add their mask to the scores take no others.
        mask = torch.zeros_like(seen, dtype=self.dtype)
        return mask.masked_fill(~seen, torch.finfo(self.dtype).min).unsqueeze(1), positions


def restarted(document_index: Tensor) -> Tensor:
    """(B, L) documents -> (B, L) positions, from 0 in each."""
    position = torch.arange(document_index.shape[1], device=document_index.device)
    return position - _starts(document_index)


def own_tags(text_time: Tensor, document_index: Tensor) -> Tensor:
    """(B, L) tags so far in the sequence -> the same where one is of the document, else 0.

    So a text reads the last image of its own document, and none before the first.
    """
    padded = F.pad(text_time, (1, 0))  # (B, L + 1): tags before each position
    before = padded.gather(1, _starts(document_index))
    return torch.where(text_time > before, text_time, 0)


def _starts(document_index: Tensor) -> Tensor:
    """(B, L): where the document of each position begins."""
    position = torch.arange(document_index.shape[1], device=document_index.device)
    begins = F.pad(document_index[:, 1:] != document_index[:, :-1], (1, 0), value=True)
    return torch.where(begins, position, 0).cummax(dim=1).values


@torch.no_grad()
def find_packing(lang_encoder: nn.Module) -> Packing:
    """The way that an LM understands, found by trying.

    Raises:
        UserError: none.
    """
    lm: Any = lang_encoder
    weight = lm.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, min(1000, len(weight)), (sum(_LENGTHS),), generator=generator)
    ids = ids.to(weight.device)
    alone = torch.cat([_logits(lm, part.unsqueeze(0)) for part in ids.split(_LENGTHS)])
    lengths = torch.tensor(_LENGTHS)
    index = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(weight.device)
    for way in ("positions", "mask"):
        packing = Packing(way, weight.dtype)
        mask, positions = packing.text_arguments(index.unsqueeze(0))
        try:
            packed = _logits(lm, ids.unsqueeze(0), attention_mask=mask, position_ids=positions)
        except (TypeError, ValueError, IndexError, RuntimeError):  # an argument it does not know
            continue
        tolerance = _TOLERANCE.get(packed.dtype, _COARSE_TOLERANCE)
        if (packed - alone).abs().max() <= tolerance * alone.std():
            _check_window(lm, way)
            return packing
    raise UserError(
        f"--pack: {type(lang_encoder).__name__} does not keep packed documents apart (its logits "
        "of a document change with the one before it); train it without --pack"
    )


def _logits(lm: Any, ids: Tensor, **arguments: Any) -> Tensor:
    """(1, L) -> (L, V)."""
    logits: Tensor = lm(input_ids=ids, use_cache=False, **arguments).logits[0]
    return logits


def _check_window(lm: Any, way: str) -> None:
    """A mask of ours would stand in for one with a window in it, which a few tokens do not show."""
    window = getattr(lm.config.get_text_config(decoder=True), "sliding_window", None)
    if way == "mask" and window is not None:
        raise UserError(
            f"--pack: {type(lm).__name__} attends within {window} tokens, which a mask of packed "
            "documents would undo; train it without --pack"
        )
