"""A stream that yields nothing: noticed after a pass over its records, and explained.

OpenFlamingo's loader goes on for ever instead; its own default threshold, 30 on a scale of 0 to
1, does that to every document. Here a lane whose whole epoch is left out has the stream looked
through once, in the order on disk, up to the first record that can be used.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from flamingo.data.config import StreamConfig
from flamingo.data.lane import RecordOutcome
from mmdata.errors import UserError
from mmdata.training_view.records import RecordRule
from mmdata.training_view.selection import DocumentReason, SelectionPolicy


class PassWatch:
    """Watches the lanes of a rank.

    Args:
        config: of the stream.
        rule: of the stream.
        policy: what its selection asks.
        survey: every record of the stream, from the start.
    """

    def __init__(
        self,
        config: StreamConfig,
        rule: RecordRule,
        policy: SelectionPolicy,
        survey: Callable[[], Iterable[RecordOutcome]],
    ) -> None:
        self._config, self._rule, self._policy = config, rule, policy
        self._survey = survey
        self._is_fertile = False
        self._barren: dict[int, int] = {}  # lane -> the epoch that it has read from its start

    def saw(self, lane: int, outcome: RecordOutcome) -> None:
        """Take note of a lane's record.

        Raises:
            UserError: the stream has no record that can be used.
        """
        if self._is_fertile:
            return
        if outcome.is_used:
            self._is_fertile = True
            return
        if outcome.at.index == 0:
            self._barren[lane] = outcome.at.epoch
        if outcome.after.epoch > outcome.at.epoch and self._barren.get(lane) == outcome.at.epoch:
            self.look_through()

    def look_through(self) -> None:
        """Find a record that can be used.

        Raises:
            UserError: there is none.
        """
        reasons: Counter[DocumentReason] = Counter()
        for outcome in self._survey():
            drop = outcome.plan.document_drop
            if drop is None:
                self._is_fertile = True
                return
            reasons[drop] += 1
        # A coin falls anew each epoch.
        if reasons[DocumentReason.SINGLE_IMAGE] and self._policy.keep_single_image > 0.0:
            self._is_fertile = True
            return
        self._refuse(reasons)

    def _refuse(self, reasons: Counter[DocumentReason]) -> None:
        total, thing = reasons.total(), self._thing
        if len(reasons) == 1:
            words = self._words(next(iter(reasons)))
            problem = f"every {thing} is {words}: all {total} dropped"
        else:
            problem = f"all {total} {thing}s dropped: " + "; ".join(
                f"{number} {'is' if number == 1 else 'are'} {self._words(reason)}"
                for reason, number in reasons.most_common()
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
