"""The media that one call of the model conditions its language model on.

The cross-attention blocks sit inside a language model that is not ours, whose `generate` calls
its `forward` many times and drops arguments on the way (transformers 5 drops an attention mask
of ones). So the media travel beside the arguments: a context is open for the time of one call
and is closed in `finally`.

Only tags of the given text count. A generated `<image>` has no picture, so what follows it goes
on attending to the last image. That also makes the count a function of the position alone, the
same for every beam of a sample, with a key-value cache and without.

Dimensions: B samples, R rows of a pass (B, or B times the beams), P known positions, L positions
of a pass, T media slots, K latents of an image, D latent width.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from flamingo.models.flamingo.cross_attention import KeysValues, MediaPass


class MediaContext:
    """Holds the media of the call in progress; empty between calls."""

    def __init__(self) -> None:
        self.current: MediaPass | None = None
        self.target_positions: Tensor | None = None
        self._latents: Tensor | None = None
        self._text_time: Tensor | None = None
        self._generating = False
        self._known: dict[int, dict[int, KeysValues]] = {}

    @contextmanager
    def open(
        self,
        latents: Tensor | None,
        text_time: Tensor,
        *,
        generating: bool = False,
        target_positions: Tensor | None = None,
    ) -> Iterator[None]:
        """latents (B, T, K, D) or None without media; text_time (B, P) of the given text."""
        if self.is_open:
            raise RuntimeError("the model is already inside a call; one call at a time")
        self._latents, self._text_time = latents, text_time
        self._generating, self.target_positions = generating, target_positions
        try:
            yield
        finally:
            self.close()

    @property
    def is_open(self) -> bool:
        return self._text_time is not None

    def close(self) -> None:
        """Forgets everything, also what a failed call left."""
        self.current = self.target_positions = self._latents = self._text_time = None
        self._generating = False
        self._known = {}

    def begin_pass(self, rows: int, length: int, num_cached: int | None) -> None:
        """The LM is about to see `length` positions behind `num_cached` in `rows` sequences.

        None stands for a cache that does not tell (recurrent LMs): a pass over less than the
        prompt then is one behind it.
        """
        self.current = None
        if self._latents is None or self._text_time is None:
            return
        samples = self._latents.shape[0]
        if rows % samples:
            raise RuntimeError(f"{rows} rows of text for the media of {samples} samples")
        known = self._text_time.shape[1]
        first = 0  # a forward pass sees the given text, generation goes on behind it
        if self._generating:
            first = num_cached if num_cached is not None else known * (length < known)
        position = torch.arange(first, first + length, device=self._text_time.device)
        # Behind the given text the count stays what it was at its end.
        text_time = self._text_time[:, position.clamp_(max=known - 1)]
        latents = self._latents
        if rows != samples:  # beams and returned sequences of a sample lie next to each other
            text_time = text_time.repeat_interleave(rows // samples, dim=0)
            latents = latents.repeat_interleave(rows // samples, dim=0)
        self.current = MediaPass(latents, text_time)
        if self._generating:
            self.current.known = self._known.setdefault(rows, {})


def count_tags(input_ids: Tensor, media_token_id: int, preceding: Tensor | None = None) -> Tensor:
    """(B, L) ids -> (B, L): how many `<image>` tags stand at or before each position."""
    count = (input_ids == media_token_id).cumsum(dim=-1)
    return count if preceding is None else count + preceding.to(count).unsqueeze(-1)
