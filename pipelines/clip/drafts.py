"""Documents of one shard on their way through CLIP."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mmdata.samples.assemble import Draft, Scores
from pipelines.clip.backend import Scored, front_end, open_backend
from pipelines.clip.model import ClipSpec
from pipelines.clip.scoring import DocumentScorer, Item

What = TypeVar("What")
Made = TypeVar("Made")


class ShardScorer:
    """Scores the documents of one shard.

    Attributes:
        front: what makes pixels of pictures.

    Args:
        clip: the model.
        pool: names of the actors that hold it; empty where this process does.
        shard: its number, so that shards begin with different actors.
    """

    def __init__(self, clip: ClipSpec, pool: tuple[str, ...], shard: int) -> None:
        self.front = front_end(clip)
        self._source = clip.source
        self._backend = open_backend(clip, pool, shard)
        self._scorer = DocumentScorer(self._backend, self.front, clip.batch_size)

    def scored(self, drafts: Iterable[tuple[What, Made]]) -> Iterator[tuple[What, Made, Scores]]:
        """Hand on documents with their similarities, in order.

        Args:
            drafts: each after what it comes back with. The pixels of a `Draft` are taken away;
                anything else waits for its turn only, and its scores are empty.
        """
        for (what, made), matrix in self._scorer.score(map(_item, drafts)):
            yield what, made, Scores(matrix, self._source)

    def report(self) -> Scored:
        """What was scored so far."""
        backend = self._backend
        return Scored(
            self._scorer.images, self._scorer.sentences, backend.busy_seconds, backend.seconds
        )


def _item(placed: tuple[What, Made]) -> Item[tuple[What, Made]]:
    draft = placed[1]
    if not isinstance(draft, Draft):
        return Item(placed, [], [], 0)
    pixels, draft.pixels = draft.pixels, []
    held = sum(picture.num_bytes for picture in draft.pictures)
    return Item(placed, pixels, draft.document.text_list, held)


def scored_by(
    scorer: ShardScorer | None, drafts: Iterable[tuple[What, Made]]
) -> Iterator[tuple[What, Made, Scores | None]]:
    """Hand on documents with their similarities, or with None where nothing scores."""
    if scorer is not None:
        yield from scorer.scored(drafts)
        return
    for what, made in drafts:
        yield what, made, None
