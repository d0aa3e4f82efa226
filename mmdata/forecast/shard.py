"""What a worker finds out about one shard for a forecast.

From the samples table, where that answers the question (5 us a document and threshold, no picture
is read), or from the documents: all of them, or rows of a sample, which are then read by offset.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mmdata.errors import BadInputError
from mmdata.forecast.table import ANY_TRAITS, COLUMNS, TableRow, Traits, select_row
from mmdata.forecast.tally import THRESHOLDS, TrainingTally
from mmdata.shards.reader import ShardReader, read_samples_table, samples_path
from mmdata.shards.tar import BLOCK_BYTES
from mmdata.storage.files import exists, read_range
from mmdata.training_view.plans import RecordPlan, plan_record
from mmdata.training_view.records import Record, RecordRule, UnusableError, read_record
from mmdata.training_view.selection import DocumentReason, SelectionPolicy, select
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import load_tokenizer

#: Where the documents of a shard are, as the samples table has it.
_PLACES = ("key", "offset", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a forecast asks of every shard.

    Attributes:
        rule: of the stream that is to be.
        policy: of the stream.
        tokenizer: name or folder; None: the text is not looked at.
        max_tokens: where the text is cut.
        exact: read what the samples table leaves open.
        uniform: all documents of a shard agree in their alignment.
    """

    rule: RecordRule
    policy: SelectionPolicy
    tokenizer: str | None = None
    max_tokens: int = 0
    exact: bool = False
    uniform: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastTask:
    """One shard to look at.

    Attributes:
        path: of the tar.
        question: what is asked.
        from_table: ask the samples table, else the documents.
        rows: the documents to look at, by their place in the shard; None: all.
    """

    path: str
    question: Question
    from_table: bool
    rows: tuple[int, ...] | None = None


def forecast_shard(task: ForecastTask) -> TrainingTally:
    """The counts of one shard.

    Raises:
        BadInputError: the shard or its samples table cannot be read.
        UserError: there is no such tokenizer.
    """
    return _from_table(task) if task.from_table else _from_documents(task)


@lru_cache(maxsize=1)
def media_tokenizer(name: str) -> MediaTokenizer:
    """The tokenizer, loaded once a process."""
    return MediaTokenizer(load_tokenizer(name))


def _from_documents(task: ForecastTask) -> TrainingTally:
    tally, question = TrainingTally(), task.question
    tokenizer = media_tokenizer(question.tokenizer) if question.tokenizer else None
    for members in read_members(task.path, task.rows):
        try:
            record = read_record(members, question.rule)
        except UnusableError as error:
            tally.add_unusable(error.reason)
            continue
        tally.add(
            plan_record(record, question.rule, question.policy, tokenizer, question.max_tokens),
            len(record.images),
        )
        if question.rule == "interleaved":
            _try_thresholds(tally, record, question.policy)
    return tally


def _try_thresholds(tally: TrainingTally, record: Record, policy: SelectionPolicy) -> None:
    for threshold in THRESHOLDS:
        chosen = select(record.candidates, replace(policy, min_similarity=threshold))
        tally.add_threshold(threshold, len(chosen.kept))


def _from_table(task: ForecastTask) -> TrainingTally:
    table = read_samples_table(samples_path(task.path), [*_PLACES, *COLUMNS])
    if task.question.rule == "caption":
        return _captions(table["matched"])
    tally, policy, settled_by_reading = TrainingTally(), task.question.policy, []
    policies = {threshold: replace(policy, min_similarity=threshold) for threshold in THRESHOLDS}
    traits = _traits(task, list(zip(*(table[name] for name in _PLACES), strict=True)))
    for number, values in enumerate(zip(*(table[name] for name in COLUMNS), strict=True)):
        row = TableRow(*values)
        chosen, doubt = select_row(row, traits, policy)
        if doubt and task.question.exact:
            settled_by_reading.append(number)
            continue
        tally.unsettled += doubt is not None
        tally.unsettled_small += doubt == "small-images"
        images = [image for image, _ in chosen.kept]
        tally.add(
            RecordPlan([], images, chosen.image_drops, chosen.document_drop), len(row.matched)
        )
        for threshold, other in policies.items():
            kept = select(row.candidates(traits[0]), other).kept
            tally.add_threshold(threshold, len(kept))
    if settled_by_reading:
        tally.merge(_from_documents(replace(task, rows=tuple(settled_by_reading))))
    return tally


def _captions(matched: Sequence[Sequence[int]]) -> TrainingTally:
    """The counts of a stream of captions, which uses every sample with one image."""
    tally = TrainingTally()
    for images in matched:
        if len(images) == 1:
            tally.add(RecordPlan([], [0]), 1)
        else:
            tally.add_unusable(DocumentReason.NOT_A_PAIR)
    return tally


def _traits(task: ForecastTask, places: list[tuple[str, int, int]]) -> tuple[Traits, ...]:
    """What the documents of a shard may be, the first of them before all."""
    if not places:
        return ANY_TRAITS
    _, offset, size = places[0]
    members = {"json": memoryview(read_range(task.path, offset, size))}
    try:
        found = read_record(members, "interleaved").candidates
    except UnusableError as error:
        raise BadInputError(
            f"{task.path}: the first document of its samples table is none ({error}); "
            "mmdata validate tells more"
        ) from error
    first = Traits(found.alignment, found.similarity_source)
    return (first,) if task.question.uniform else (first, *ANY_TRAITS)


def read_members(path: str, rows: tuple[int, ...] | None) -> Iterator[Mapping[str, memoryview]]:
    """The members of samples, in order.

    Args:
        path: of the tar.
        rows: which samples, by their place; None: all.
    """
    places = places_of_documents(path) if rows is not None else None
    if rows is not None and places is not None:
        for row in rows:
            yield {"json": memoryview(read_range(path, *places[row]))}
        return
    with ShardReader(path) as reader:
        keys = reader.keys
        for row in range(len(keys)) if rows is None else rows:
            yield reader.read(keys[row]).members


def places_of_documents(path: str) -> list[tuple[int, int]] | None:
    """(offset, size) of a shard's documents, by its samples table; None where that tells of none.

    In pairs the first place is a picture's, as the name in the header before it says. A name that
    is too long for it tells nothing.
    """
    if not exists(samples_path(path)):
        return None
    table = read_samples_table(samples_path(path), list(_PLACES))
    if not table["key"]:
        return None
    name = f"{table['key'][0]}.json".encode("utf-8", "surrogateescape")
    start = table["offset"][0] - BLOCK_BYTES
    if start < 0 or read_range(path, start, len(name)) != name:
        return None
    return list(zip(table["offset"], table["size"], strict=True))
