"""`mmdata validate --forecast` and `--peer`: what loaders would make of shards, over the engine.

A unit is one shard and sends back counts. Where samples tables answer, no document is read; a
tokenizer, a peer or shards without tables need documents, which are a seeded sample over all
shards unless `--exact` asks for all. The sample is drawn by number, so that it does not depend on
workers or on how shards are read.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from mmdata.catalogue.shards import Catalogue
from mmdata.errors import UserError
from mmdata.forecast.openflamingo import PeerTally, PeerTask, coin_drops, judge_shard
from mmdata.forecast.shard import ForecastTask, Question, forecast_shard, media_tokenizer
from mmdata.forecast.summary import summarise
from mmdata.forecast.tally import TrainingTally
from mmdata.shards.reader import samples_path
from mmdata.storage.files import exists
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.training_view.records import RecordRule
from mmdata.training_view.selection import SelectionPolicy
from pipelines.engine.compute_each import compute_each
from pipelines.engine.events import UnitFailure
from pipelines.validate.options import Validate
from schemas.forecast import Basis, Forecast, PeerForecast
from schemas.manifest import KINDS

#: What one core reads of tables and documents, in documents a second, to choose workers by.
_ROWS_A_SECOND, _DOCUMENTS_A_SECOND = 15_000, 300


class _Tally(Protocol):
    def merge(self, other: Any) -> None: ...


Result = TypeVar("Result", bound=_Tally)


def forecast(options: Validate, holdings: Catalogue) -> Forecast:
    """What a training run would use of the shards.

    Raises:
        UserError: there is no such tokenizer, or the kind of the stream is not known.
    """
    question = _question(options, holdings)
    unread: list[str] = []
    by_table = TrainingTally()
    paths = [shard.path for shard in holdings.shards]
    has_tables = _has_tables(holdings)
    if has_tables:
        asked = replace(question, tokenizer=None, exact=options.exact and not question.tokenizer)
        tasks = [ForecastTask(path=path, question=asked, from_table=True) for path in paths]
        by_table = _sum(tasks, forecast_shard, TrainingTally(), options, unread)
    if has_tables and not question.tokenizer:
        basis: Basis = "tables"
        tally = by_table
    else:
        basis, rows = _choose(options, holdings)
        documents = [
            ForecastTask(path=path, question=question, from_table=False, rows=places)
            for path, places in rows
        ]
        tally = _sum(documents, forecast_shard, TrainingTally(), options, unread)
    return summarise(
        tally,
        question,
        basis=basis,
        documents=holdings.num_samples,
        batch_size=options.batch_size,
        seed=options.seed if basis == "sample" else None,
        thresholds=by_table if by_table.looked_at and basis == "sample" else tally,
        unread=_once(unread) + _not_finished(holdings),
    )


def judge_peer(options: Validate, holdings: Catalogue) -> PeerForecast:
    """What OpenFlamingo's loader would do with the shards.

    Raises:
        UserError: nothing tells whether the shards hold documents or captions.
    """
    rule = _rule(options, holdings)
    basis, rows = _choose(options, holdings)
    unread: list[str] = []
    tasks = [
        PeerTask(
            path=path,
            rule=rule,
            min_similarity=options.min_similarity,
            min_images=options.min_images,
            max_images=options.max_images,
            tokenizer=options.tokenizer,
            rows=places,
        )
        for path, places in rows
    ]
    tally = _sum(tasks, judge_shard, PeerTally(), options, unread)
    return PeerForecast(
        peer="openflamingo",
        rule=rule,
        basis=basis,
        documents=holdings.num_samples,
        looked_at=tally.looked_at,
        seed=options.seed if basis == "sample" else None,
        used=tally.used,
        dropped=dict(tally.dropped.most_common()),
        coin_drops=coin_drops(tally),
        images_used=tally.images_used,
        images_dropped=dict(tally.images_dropped.most_common()),
        mispaired=tally.mispaired,
        extra_tags=tally.extra_tags,
        unread=_once(unread) + _not_finished(holdings),
    )


def _question(options: Validate, holdings: Catalogue) -> Question:
    rule = _rule(options, holdings)
    if options.tokenizer:
        media_tokenizer(options.tokenizer)  # one that is not there shows here, not in each worker
    policy = SelectionPolicy(
        min_similarity=options.min_similarity,
        min_image_bytes=options.min_image_bytes,
        max_images=options.max_images,
        min_images=options.min_images,
        keep_single_image=options.keep_single_image,
        surplus=options.surplus,
    )
    return Question(
        rule=rule,
        policy=policy,
        tokenizer=options.tokenizer,
        max_tokens=options.max_tokens or MAX_TOKENS[rule],
        exact=options.exact,
        uniform=bool(holdings.kinds) and all(KINDS[one].one_alignment for one in holdings.kinds),
    )


def _rule(options: Validate, holdings: Catalogue) -> RecordRule:
    """By which rule the shards are read: as asked, else as they tell.

    Raises:
        UserError: nothing tells.
    """
    if options.stream != "auto":
        return options.stream
    found = holdings.rule()
    if found is not None or holdings.first is None:
        return found or "interleaved"
    raise UserError(
        f"{holdings.first.path}: its first sample does not tell whether these are documents or "
        "captions: --stream interleaved or --stream caption"
    )


def _has_tables(holdings: Catalogue) -> bool:
    """Whether each shard has a samples table that answers.

    What `index` writes beside shards by others says what is in them and computes nothing, so that
    documents without an assignment of their own have none there.
    """
    return not holdings.is_indexed and all(
        exists(samples_path(shard.path)) for shard in holdings.shards
    )


def _choose(
    options: Validate, holdings: Catalogue
) -> tuple[Basis, list[tuple[str, tuple[int, ...] | None]]]:
    """The documents to read: all, or a sample where that is fewer."""
    if options.exact or options.sample_documents >= holdings.num_samples:
        return "documents", [(shard.path, None) for shard in holdings.shards]
    return "sample", _sample(holdings, options.sample_documents, options.seed)


def _sample(holdings: Catalogue, size: int, seed: int) -> list[tuple[str, tuple[int, ...] | None]]:
    """The places of a sample's documents, by shard."""
    starts = [0, *accumulate(shard.num_samples for shard in holdings.shards)]
    rows: dict[int, list[int]] = {}
    for ordinal in sorted(random.Random(seed).sample(range(holdings.num_samples), size)):
        shard = bisect_right(starts, ordinal) - 1
        rows.setdefault(shard, []).append(ordinal - starts[shard])
    return [(holdings.shards[shard].path, tuple(places)) for shard, places in rows.items()]


def _sum(
    tasks: Sequence[Any],
    work: Callable[[Any], Result],
    total: Result,
    options: Validate,
    unread: list[str],
) -> Result:
    """Run the tasks and add their results up; those that fail are named in `unread`."""
    results = compute_each(work, tasks, options, seconds=_seconds(tasks))
    for task, result in zip(tasks, results, strict=True):
        if isinstance(result, UnitFailure):
            unread.append(f"{task.path}: {result.error}")
        else:
            total.merge(result)
    return total


def _seconds(tasks: Sequence[Any]) -> float:
    """About how long one core takes."""
    if not tasks:
        return 0.0
    if getattr(tasks[0], "from_table", False):
        return len(tasks) * 1000 / _ROWS_A_SECOND
    return sum(1000 if task.rows is None else len(task.rows) for task in tasks) / (
        _DOCUMENTS_A_SECOND
    )


def _once(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def _not_finished(holdings: Catalogue) -> list[str]:
    return [f"{path}: no sidecar, so its conversion did not finish" for path in holdings.left_out]
