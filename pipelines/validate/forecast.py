"""`mmdata validate --forecast` and `--peer`: what loaders would make of shards, over the engine.

A unit is one shard and sends back counts. Where samples tables answer, no document is read; a
tokenizer, a peer or shards without tables need documents, which are a seeded sample over all
shards unless `--exact` asks for all. The sample is drawn by number, so that it does not depend on
workers or on how shards are read.
"""

import os
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import msgspec

from mmdata.errors import BadInputError, UserError
from mmdata.forecast.openflamingo import PeerTally, PeerTask, coin_drops, judge_shard
from mmdata.forecast.shard import ForecastTask, Question, forecast_shard, media_tokenizer
from mmdata.forecast.summary import summarise
from mmdata.forecast.tally import UsageTally
from mmdata.shards.naming import MANIFEST_NAME, PLAN_NAME, SIDECAR, TAR
from mmdata.shards.reader import ShardReader, samples_path
from mmdata.storage.files import exists, read_bytes
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.training_view.records import RecordRule, likely_rule
from mmdata.training_view.selection import SelectionPolicy
from pipelines.engine.run_units import UnitFailure, choose_workers, one_step, run_units
from pipelines.validate.forecast_options import Stream
from pipelines.validate.options import Validate
from schemas.forecast import Basis, Forecast, PeerForecast
from schemas.manifest import Manifest, Sidecar

#: What one core reads of tables and documents, in documents a second, to choose workers by.
_ROWS_A_SECOND, _DOCUMENTS_A_SECOND = 15_000, 300
_UNIFORM_KINDS = frozenset(("mmc4", "laion"))


class _Tally(Protocol):
    def merge(self, other: Any) -> None: ...


Result = TypeVar("Result", bound=_Tally)


@dataclass(frozen=True)
class Holdings:
    """The shards that a forecast is about.

    Attributes:
        paths: of shards that exist, in order.
        counts: samples of each.
        kinds: of the manifests beside them; empty for foreign ones.
        left_out: shards that their conversion did not finish.
        by_others: some were made by others, and only indexed here.
    """

    paths: list[str]
    counts: list[int]
    kinds: frozenset[str]
    left_out: list[str]
    by_others: bool = False

    @property
    def documents(self) -> int:
        """In all shards."""
        return sum(self.counts)

    @cached_property
    def has_tables(self) -> bool:
        """Whether each shard has a samples table that answers.

        What `index` writes beside shards by others says what is in them and computes nothing, so
        that documents without an assignment of their own have none there.
        """
        return not self.by_others and all(exists(samples_path(path)) for path in self.paths)

    def rule(self, asked: Stream) -> RecordRule:
        """The rule by which the stream is read: as asked, by the manifests, or by the first sample.

        Raises:
            UserError: nothing tells.
        """
        if asked != "auto":
            return asked
        rules: set[RecordRule] = {
            "caption" if kind == "laion" else "interleaved" for kind in self.kinds
        }
        if len(rules) == 1:
            return rules.pop()
        first = next((path for path, n in zip(self.paths, self.counts, strict=True) if n), None)
        if first is None:
            return "interleaved"
        with ShardReader(first) as reader:
            found = None if rules else likely_rule(reader.read(reader.keys[0]).members)
        if found is None:
            raise UserError(
                f"{first}: its first sample does not tell whether these are documents or captions: "
                "--stream interleaved or --stream caption"
            )
        return found

    def sample(self, size: int, seed: int) -> dict[int, tuple[int, ...]]:
        """The places of a sample's documents, by shard."""
        starts = [0, *accumulate(self.counts)]
        drawn = random.Random(seed).sample(range(self.documents), min(size, self.documents))
        rows: dict[int, list[int]] = {}
        for ordinal in sorted(drawn):
            shard = bisect_right(starts, ordinal) - 1
            rows.setdefault(shard, []).append(ordinal - starts[shard])
        return {shard: tuple(places) for shard, places in rows.items()}


def find_holdings(paths: Sequence[str]) -> Holdings:
    """Count the samples of shards: by their sidecars, or by the headers of those without.

    Raises:
        BadInputError: a sidecar, a manifest or a shard without sidecar cannot be read.
    """
    kinds, found, counts, left_out = set(), [], [], []
    by_others = False
    for folder in sorted({os.path.dirname(path) for path in paths}):
        raw = _read_if_there(os.path.join(folder, MANIFEST_NAME))
        if raw is not None and b'"format_version"' in raw:
            kinds.add(_decode(raw, Manifest, os.path.join(folder, MANIFEST_NAME)).kind)
    for path in paths:
        beside = path.removesuffix(TAR) + SIDECAR
        raw = _read_if_there(beside)
        if raw is not None and b'"fingerprint"' in raw and b'"samples_sha256"' in raw:
            sidecar = _decode(raw, Sidecar, beside)
            counts.append(sidecar.tally.documents)
            by_others = by_others or sidecar.indexed
        elif exists(os.path.join(os.path.dirname(path), PLAN_NAME)):
            left_out.append(path)
            continue
        else:
            with ShardReader(path) as reader:
                counts.append(len(reader))
        found.append(path)
    return Holdings(found, counts, frozenset(kinds), left_out, by_others)


def forecast(options: Validate, holdings: Holdings) -> Forecast:
    """What a training run would use of the shards.

    Raises:
        UserError: there is no such tokenizer, or the kind of the stream is not known.
    """
    question = _question(options, holdings)
    unread: list[str] = []
    by_table = UsageTally()
    if holdings.has_tables:
        asked = replace(question, tokenizer=None, exact=options.exact and not question.tokenizer)
        tasks = [
            ForecastTask(path=path, question=asked, from_table=True) for path in holdings.paths
        ]
        by_table = _sum(tasks, forecast_shard, UsageTally(), options, unread)
    if holdings.has_tables and not question.tokenizer:
        basis: Basis = "tables"
        tally = by_table
    else:
        basis, rows = _choose(options, holdings)
        documents = [
            ForecastTask(path=path, question=question, from_table=False, rows=places)
            for path, places in rows
        ]
        tally = _sum(documents, forecast_shard, UsageTally(), options, unread)
    return summarise(
        tally,
        question,
        basis=basis,
        documents=holdings.documents,
        batch_size=options.batch_size,
        seed=options.seed if basis == "sample" else None,
        thresholds=by_table if by_table.looked_at and basis == "sample" else tally,
        unread=_once(unread) + _not_finished(holdings),
    )


def judge_peer(options: Validate, holdings: Holdings) -> PeerForecast:
    """What OpenFlamingo's loader would do with the shards.

    Raises:
        UserError: nothing tells whether the shards hold documents or captions.
    """
    rule = holdings.rule(options.stream)
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
        documents=holdings.documents,
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


def _question(options: Validate, holdings: Holdings) -> Question:
    rule = holdings.rule(options.stream)
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
        uniform=bool(holdings.kinds) and holdings.kinds <= _UNIFORM_KINDS,
    )


def _choose(
    options: Validate, holdings: Holdings
) -> tuple[Basis, list[tuple[str, tuple[int, ...] | None]]]:
    """The documents to read: all, or a sample where that is fewer."""
    if options.exact or options.sample_documents >= holdings.documents:
        return "documents", [(path, None) for path in holdings.paths]
    rows = holdings.sample(options.sample_documents, options.seed)
    return "sample", [(holdings.paths[shard], places) for shard, places in sorted(rows.items())]


def _sum(
    tasks: Sequence[Any],
    work: Callable[[Any], Result],
    total: Result,
    options: Validate,
    unread: list[str],
) -> Result:
    """Run the tasks and add their results up; those that fail are named in `unread`."""
    workers = choose_workers(options.workers, _seconds(tasks), options.ray_address)
    results: dict[int, Result] = {}
    for index, event in run_units(
        one_step(work),
        tasks,
        workers=workers,
        ray_address=options.ray_address,
        stall_seconds=options.stall_timeout,
    ):
        if isinstance(event, UnitFailure):
            unread.append(f"{tasks[index].path}: {event.error}")
        elif isinstance(event, type(total)):
            results[index] = event
    for result in results.values():
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


def _not_finished(holdings: Holdings) -> list[str]:
    return [f"{path}: no sidecar, so its conversion did not finish" for path in holdings.left_out]


def _read_if_there(path: str) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None


_Record = TypeVar("_Record", Manifest, Sidecar)


def _decode(raw: bytes, kind: type[_Record], path: str) -> _Record:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: {error}; mmdata validate tells more") from error
