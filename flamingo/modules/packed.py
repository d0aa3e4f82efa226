"""Packed sequences: several documents in a row of tokens, none of which sees another.

Positions start anew in each; beside that an LM is told of them in one of three ways. `bounds`:
where they begin and end, for an LM whose attention is ours (`attention`), which needs no mask then.
`positions`: nothing more; transformers itself finds the documents in them and makes the mask,
sliding windows included, but some LMs ignore them (OPT, MPT). `mask`: the mask as well, one square
a sequence; some LMs with sliding windows would lose these. Which one an LM understands is not
written anywhere, so it is tried: a few random documents go through it packed and alone, and the
first way that gives the same logits is taken. An LM that none works for (a recurrent one has a
state that no mask stops) is refused, instead of training on documents that leak into each other.

Cost of a mask: B·L² values a pass, and scores between documents that are computed and discarded.

Dimensions: B sequences, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo.modules.attention import has_own_attention, text_rows
from flamingo.modules.documents import Documents
from flamingo.modules.language_model import text_config
from mmdata.errors import UserError

Way = Literal["bounds", "positions", "mask"]
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

    way: Way
    dtype: torch.dtype

    def told(
        self,
        document_index: Tensor,
        bounds: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor | None, Tensor, Documents | None]:
        """What the LM is told of documents (B, L), -1 for padding.

        Padding is a document of its own, whose logits nobody reads. See `Documents` for bounds and
        lengths, which are read from the device where they are not given.

        Returns:
            (attention mask, position ids (B, L), what `text_rows` is given).
        """
        positions = restarted(document_index)
        if self.way == "positions":
            return None, positions, None
        if self.way == "bounds":
            # With a mask of two dimensions transformers looks for no documents in the positions.
            mask = (document_index >= 0).long()
            return mask, positions, Documents.of(document_index, bounds, lengths)
        same = document_index.unsqueeze(2) == document_index.unsqueeze(1)  # (B, L, L)
        seen = same & torch.ones_like(same[0]).tril()
        # Numbers, not booleans: LMs that add their mask to the scores take no others.
        mask = torch.zeros_like(seen, dtype=self.dtype)
        mask = mask.masked_fill(~seen, torch.finfo(self.dtype).min).unsqueeze(1)
        return mask, positions, None


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


def ways_of(lang_encoder: nn.Module) -> tuple[Way, ...]:
    """The ways that an LM may understand, best first."""
    config = text_config(lang_encoder)
    # Chunks of a text are no window of it: transformers makes their mask.
    if getattr(config, "attention_chunk_size", None) is not None:
        return "positions", "mask"
    first: tuple[Way, ...] = ("bounds",) if has_own_attention(lang_encoder) else ()
    # To find documents in positions, transformers reads from the device in every pass.
    windowed = getattr(config, "sliding_window", None) is not None
    return *first, *(("positions", "mask") if windowed else ("mask", "positions"))


@torch.no_grad()
def find_packing(lang_encoder: nn.Module) -> Packing:
    """The way that an LM understands, found by trying.

    Raises:
        UserError: it understands no way, or one that would undo a window that it attends within.
    """
    lm: Any = lang_encoder
    weight = lm.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, min(1000, len(weight)), (sum(_LENGTHS),), generator=generator)
    ids = ids.to(weight.device)
    alone = torch.cat([_logits(lm, part.unsqueeze(0)) for part in ids.split(_LENGTHS)])
    lengths = torch.tensor(_LENGTHS)
    index = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(weight.device)[None]
    for way in ways_of(lang_encoder):
        packing = Packing(way, weight.dtype)
        mask, positions, documents = packing.told(index)
        try:
            with text_rows(right_padded=False, documents=documents):
                packed = _logits(lm, ids[None], attention_mask=mask, position_ids=positions)
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
    window = getattr(text_config(lm), "sliding_window", None)
    if way == "mask" and window is not None:
        raise UserError(
            f"--pack: {type(lm).__name__} attends within {window} tokens, which a mask of packed "
            "documents would undo; train it without --pack"
        )
