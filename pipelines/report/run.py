"""`mmdata report`: sum up shards in this process or over Ray, and write the page.

A unit is a run of shards of one folder; what a worker sends back is one `Summary` of constant
size, so 10,000 shards are as easy on the driver as ten. Pictures and texts of the few documents
that are shown are read here, by offset.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmdata.catalogue.beside import rule_of_conversion
from mmdata.catalogue.find import find_shards
from mmdata.errors import BadInputError, MMDataError, UserError
from mmdata.report.contents import Contents, FindingsReport, Folder, read_findings, read_manifest
from mmdata.report.gallery import read_document, show_documents
from mmdata.report.page import render
from mmdata.report.picks import Pick, Picks
from mmdata.report.summary import Summary, SummaryTask, summarise
from mmdata.report.tables import SamplesTable
from mmdata.report.tokens import SAMPLE, TokenCount, count_tokens, load_tokenizer
from mmdata.report.training import MEANINGS, Alignment, is_held_out
from mmdata.shards.reader import samples_path
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import exists
from mmdata.training_view.records import rule_of_kind
from mmdata.training_view.selection import SelectionPolicy
from mmdata.validation.documents import Unreadable
from pipelines.engine.compute_each import compute_each
from pipelines.engine.events import UnitFailure
from pipelines.report.options import Report
from pipelines.validate.options import Validate
from pipelines.validate.run import validate

_SHARDS_PER_UNIT = 50
#: What one core takes for a shard of 1,000 documents, to guess whether Ray is worth its start.
_SECONDS_PER_SHARD = 0.03
#: Tables that are looked through for the first document of a folder.
_MAX_LOOKED = 20


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written.

    Attributes:
        path: of the page.
        bytes: of it.
        shards, documents: that its figures are of.
        shown: documents in the gallery.
        problems: shards that could not be read.
    """

    path: str
    bytes: int
    shards: int
    documents: int
    shown: int
    problems: int

    @property
    def exit_code(self) -> int:
        """0, or 1 where shards are not in the figures."""
        return 1 if self.problems else 0


def report(options: Report) -> ReportResult:
    """Write the report of some shards.

    Raises:
        UserError: a path does not exist, no shard can be read, the findings or the tokenizer are
            none, or the page cannot be written.
    """
    paths = find_shards(options.shards)
    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer is not None else None
    findings = _findings(options)
    folders = _folders(paths)
    policy = SelectionPolicy(
        min_similarity=options.min_similarity,
        min_image_bytes=options.min_image_bytes,
        max_images=options.max_images,
    )
    num_random = max(options.documents, SAMPLE if tokenizer is not None else 0)
    tasks = _tasks(folders, options, policy, num_random)
    summary = _summarise_all(tasks, options, num_random)
    if not summary.shards:
        first = summary.problems[0]
        raise UserError(
            f"no shard can be read; the first of {len(paths):,}: {first[0]}: {first[1]}"
        )
    similarity = summary.distributions["similarity"]
    if similarity.least == similarity.greatest:  # placeholders: nothing is worse or better
        summary.picks.worst, summary.picks.best = [], []
    alignment = {path: folder.alignment for folder, group in folders for path in group}
    tokens: TokenCount | None = None
    if tokenizer is not None and options.tokenizer is not None:
        tokens = count_tokens(summary.picks.random[:SAMPLE], tokenizer, options.tokenizer)
    contents = Contents(
        title=options.title or _title(folders),
        folders=[folder for folder, _ in folders],
        num_shards=len(paths),
        summary=summary,
        policy=policy,
        documents=show_documents(summary.picks, options.documents, alignment, policy),
        num_random=options.documents,
        seed=options.seed,
        findings=findings,
        tokens=tokens,
        meanings=MEANINGS,
    )
    page = render(contents)
    try:
        write_atomically(options.output, page)
    except OSError as error:
        raise UserError(f"--output {options.output}: {error.strerror or error}") from error
    return ReportResult(
        path=options.output,
        bytes=len(page),
        shards=summary.shards,
        documents=summary.documents,
        shown=len(contents.documents),
        problems=summary.num_problems,
    )


def _findings(options: Report) -> FindingsReport | None:
    """From a file, or from a validation at level structure; None where they are not wanted."""
    if options.findings is not None:
        return read_findings(options.findings)
    if options.check == "none":
        return None
    import msgspec

    found = validate(
        Validate(
            shards=options.shards,
            level="structure",
            workers=options.workers,
            ray_address=options.ray_address,
            stall_timeout=options.stall_timeout,
        )
    )
    return msgspec.convert(msgspec.to_builtins(found), FindingsReport)


def _folders(paths: Sequence[str]) -> list[tuple[Folder, list[str]]]:
    """The folders that the shards stand in, with what their documents have in common."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[os.path.dirname(path) or "."].append(path)
    found = []
    for parent, group in groups.items():
        manifest = read_manifest(parent)
        rule = rule_of_conversion(manifest.kind, manifest.layout) if manifest else None
        alignment = _alignment(group, captions=rule == "caption")
        if manifest is not None and is_held_out(manifest.options.get("split")):
            alignment = replace(alignment, held_out=True)
        folder = Folder(path=parent, shards=len(group), alignment=alignment, manifest=manifest)
        found.append((folder, group))
    return found


def _alignment(paths: Sequence[str], *, captions: bool) -> Alignment:
    """What the first document of some shards says; the usual where none can be read."""
    for path in paths[:_MAX_LOOKED]:
        try:
            table = SamplesTable(samples_path(path)) if exists(samples_path(path)) else None
            if table is None or not table.num_documents:
                continue
            document, _ = read_document(Pick(0.0, path, table.row(0)))
        except (BadInputError, Unreadable, MMDataError, OSError):
            continue  # it is named among the problems when the figures are made
        kind = document.alignment if isinstance(document.alignment, str) else "assigned"
        source = document.similarity_source
        return Alignment(
            kind=kind,
            similarity_source=source if isinstance(source, str) else "",
            captions=captions or (isinstance(source, str) and rule_of_kind(source) == "caption"),
        )
    return Alignment(captions=captions)


def _tasks(
    folders: Sequence[tuple[Folder, list[str]]],
    options: Report,
    policy: SelectionPolicy,
    num_random: int,
) -> list[SummaryTask]:
    tasks = []
    place = 0
    for folder, group in folders:
        for start in range(0, len(group), _SHARDS_PER_UNIT):
            part = tuple(group[start : start + _SHARDS_PER_UNIT])
            tasks.append(
                SummaryTask(
                    paths=part,
                    first=place,
                    alignment=folder.alignment,
                    policy=policy,
                    num_random=num_random,
                    num_extreme=options.extremes,
                    seed=options.seed,
                )
            )
            place += len(part)
    return tasks


def _summarise_all(tasks: Sequence[SummaryTask], options: Report, num_random: int) -> Summary:
    """Every task's sums, added up in the order of the tasks so that each run gives the same."""
    parts = compute_each(
        summarise,
        tasks,
        options,
        seconds=sum(len(task.paths) for task in tasks) * _SECONDS_PER_SHARD,
        shards_of=lambda task: task.paths,
        doing="reading it",
        again="it is read again",
    )
    whole = Summary(picks=Picks(num_random=num_random, num_extreme=options.extremes))
    for task, part in zip(tasks, parts, strict=True):
        whole.merge(_failed(task, part.error) if isinstance(part, UnitFailure) else part)
    return whole


def _failed(task: SummaryTask, error: str) -> Summary:
    return Summary(
        num_problems=len(task.paths), problems=[(path, error) for path in task.paths[:20]]
    )


def _title(folders: Sequence[tuple[Folder, list[str]]]) -> str:
    """The last part of the folders' names."""
    names = [os.path.basename(os.path.abspath(folder.path)) for folder, _ in folders]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
