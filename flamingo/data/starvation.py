"""A stream that yields nothing: noticed after one pass over its records, and explained.

OpenFlamingo's loader goes on for ever instead; its own default threshold, 30 on a scale of 0 to
1, does that to every document.
"""

from collections import Counter

from flamingo.data.config import StreamConfig
from flamingo.data.order import Position
from flamingo.data.prepare import Plan
from flamingo.data.records import RecordRule
from mmdata.errors import UserError
from mmdata.selection import DocumentReason, SelectionPolicy


class PassWatch:
    """Watches whole passes over a stream's records.

    Args:
        config: of the stream.
        rule: of the stream.
        policy: what its selection asks.
    """

    def __init__(self, config: StreamConfig, rule: RecordRule, policy: SelectionPolicy) -> None:
        self._config, self._rule, self._policy = config, rule, policy
        self._reasons: Counter[DocumentReason] = Counter()
        self._is_whole = False
        self._num_used = 0

    def saw(self, plan: Plan, before: Position, after: Position) -> None:
        """Take note of a record.

        Raises:
            UserError: it was the last of a pass that used none.
        """
        if before.index == 0 and before.chunk == 0:
            self._reasons.clear()
            self._is_whole, self._num_used = True, 0
        if plan.document_drop is None:
            self._num_used += 1
        else:
            self._reasons[plan.document_drop] += 1
        if after.epoch > before.epoch and self._is_whole and not self._num_used:
            self._refuse()

    def _refuse(self) -> None:
        """Raises unless a coin did it: the next pass throws it anew."""
        if self._reasons[DocumentReason.SINGLE_IMAGE] and self._policy.keep_single_image > 0.0:
            return
        total, thing = self._reasons.total(), self._thing
        if len(self._reasons) == 1:
            words = self._words(next(iter(self._reasons)))
            problem = f"every {thing} is {words}: all {total} dropped"
        else:
            problem = f"all {total} {thing}s dropped: " + "; ".join(
                f"{number} {'is' if number == 1 else 'are'} {self._words(reason)}"
                for reason, number in self._reasons.most_common()
            )
        raise UserError(f"stream {self._config.name}: {problem}; nothing to train on")

    @property
    def _thing(self) -> str:
        return "document" if self._rule == "interleaved" else "sample"

    def _words(self, reason: DocumentReason) -> str:
        """The reason, with the setting that it came from; goes on after `is`."""
        policy = self._policy
        few = f"left with fewer images than --mmc4-min-num-images {policy.min_images}"
        settings = {
            DocumentReason.BELOW_SIMILARITY: (
                f"below --mmc4-textsim-threshold {policy.min_similarity:g}"
            ),
            DocumentReason.IMAGES_TOO_SMALL: (
                f"without an image of {policy.min_image_bytes:,} bytes or more "
                "(--mmc4-min-image-bytes)"
            ),
            DocumentReason.TOO_FEW_IMAGES: few,
            DocumentReason.CUT_OFF: f"{few} where the text is cut",
            DocumentReason.SINGLE_IMAGE: "of a single image, of which none are kept",
            DocumentReason.NOT_INTERLEAVED: "no document (is this a stream of captions?)",
            DocumentReason.NOT_A_PAIR: "not one image and its text (is this interleaved?)",
        }
        return settings.get(reason, f"dropped as {reason}")
