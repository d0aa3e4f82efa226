"""What a person reads at the end of a conversion: in, out, dropped by reason, and what next."""

import os
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmdata.fetch.outcome import FetchStatus
from mmdata.wording import plural
from pipelines.conversion.fields import inputs_without
from pipelines.conversion.plan import ConversionPlan
from pipelines.conversion.pseudonymise import public_plan
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.space import free_bytes, human_bytes, human_seconds
from schemas.manifest import Tally
from schemas.reasons import DocumentNote, ImageDrop

#: A trainer wants at least one shard for each rank and worker.
_FEW_SHARDS = 8


def print_conversion(result: ConversionResult, console: Console | None = None) -> None:
    """Print the table of a run and what the user may want to do next."""
    console = console or Console(highlight=False, soft_wrap=True)
    for name, part in result.splits:
        console.print(f"split {name}")
        print_conversion(part, console)
    if result.splits:
        return
    if result.dry_run:
        _print_plan(result, console)
        return
    _print_counts(result, console)
    print_dropped(result.tally, console)
    _print_groups(result, console)
    _print_names(result, console)
    _print_excluded(result, console)
    _print_again(result, console)
    for label, failure in result.failures:
        console.print(f"failed: {label}: {failure.error}", markup=False)
    for name in result.lost:
        console.print(f"lost: {name}: not one of its samples could be saved", markup=False)
    _print_unfit(result, console)
    _print_scored(result, console)
    _print_ending(result, console)


def _print_plan(result: ConversionResult, console: Console) -> None:
    plan, estimate = public_plan(result.plan), result.plan.estimate()
    free = free_bytes(result.output)
    console.print(f"plan for {result.output}", markup=False)
    table = Table()
    table.add_column("what")
    table.add_column("how much", justify="right")
    for what, amount in (
        ("inputs", f"{len(plan.inputs):,}"),
        ("inputs left out", f"{len(plan.excluded):,}"),
        ("records", f"{plan.num_records:,}"),
        ("units", f"{len(plan.units):,}"),
        ("shards", f"{plan.num_shards:,}"),
        *_per_shard(plan),
        ("images (estimate)", f"{estimate.images:,}"),
        ("to read (estimate)", human_bytes(estimate.read_bytes)),
        ("to write (estimate)", human_bytes(estimate.write_bytes)),
        ("free on that disk", "no limit known" if free is None else human_bytes(free)),
        (f"time on {plural(result.workers or 1, 'core')} (rough)", human_seconds(result.seconds)),
    ):
        table.add_row(what, amount)
    console.print(table)
    for entry in plan.inputs:
        for segment, scan in zip(entry.segments, entry.scans, strict=True):
            wanted = plural(scan.probed_images, "image")
            images = f"{scan.probed_found:,} of {wanted} looked for are there"
            where = f"{entry.name}:{segment.member}" if segment.member else entry.name
            looked = f" ({scan.looked_in})" if scan.looked_in else ""
            records = plural(scan.records, "record")
            console.print(f"{where}: {records}; {images}{looked}", markup=False)
    _print_excluded(result, console)


def _per_shard(plan: ConversionPlan) -> list[tuple[str, str]]:
    """How much goes into a shard; a split reads records of which it keeps only its share."""
    records = f"{plan.docs_per_shard:,}"
    share = plan.options.get("split_share")
    if not isinstance(share, float):
        return [("records a shard, at most", records)]
    kept = f"{int(plan.docs_per_shard * share):,}"
    return [("records read for a shard, at most", records), ("of them in it, about", kept)]


def from_here(path: str) -> str:
    """A path as it was most likely named: from the working folder, where it lies below that."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here) or path


def _print_counts(result: ConversionResult, console: Console) -> None:
    tally = result.tally
    console.print(f"{result.plan.kind} -> {from_here(result.output)}", markup=False)
    table = Table()
    for name, justify in (("", "left"), ("in", "right"), ("out", "right"), ("dropped", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    dropped = sum(tally.documents_dropped.values())
    if tally.other_splits:
        table.add_row("of other splits", f"{tally.other_splits:,}", "", "")
    table.add_row("documents", f"{tally.records:,}", f"{tally.documents:,}", f"{dropped:,}")
    dropped = sum(tally.images_dropped.values())
    table.add_row("images", f"{tally.images_listed:,}", f"{tally.images:,}", f"{dropped:,}")
    table.add_row("  of them re-encoded", "", f"{tally.images_reencoded:,}", "")
    table.add_row("sentences", "", f"{tally.sentences:,}", "")
    table.add_row("image files", "", human_bytes(tally.image_bytes), "")
    if result.groups is not None:
        table.add_row(f"groups ({escape(result.groups.by)})", "", f"{result.groups.groups:,}", "")
    shards = result.shards_written + result.shards_kept
    table.add_row("shards", f"{result.plan.num_shards:,}", f"{shards:,}", "")
    console.print(table)


def print_dropped(tally: Tally, console: Console) -> None:
    """Print what was dropped and noted, by reason; nothing where there is nothing."""
    rows = [
        *(("document", "dropped", *item) for item in sorted(tally.documents_dropped.items())),
        *(("image", "dropped", *item) for item in sorted(tally.images_dropped.items())),
        *(("", "kept", *item) for item in sorted(tally.notes.items())),
    ]
    if rows:
        table = Table(title="dropped, and kept with a remark", title_justify="left")
        for name in ("what", "action", "reason"):
            table.add_column(name)
        table.add_column("count", justify="right")
        for what, action, reason, count in rows:
            table.add_row(what, action, reason, f"{count:,}")
        console.print(table)
    if tally.documents_dropped or tally.images_dropped:
        console.print("each of them: *.rejects.jsonl beside its shard (file, record, reason)")
    if tally.images_dropped.get(ImageDrop.UNSAFE_URL) and not tally.documents:
        console.print(
            "URLs were refused (unsafe-url): *.outcomes.parquet says why; --allow-private-hosts "
            "also asks loopback, private and link-local addresses (with --retry-failed, those "
            "that were refused here)"
        )
    if left := tally.images_dropped.get(ImageDrop.NOT_FETCHED):
        console.print(
            f"{plural(left, 'image was', 'images were')} not fetched: *.outcomes.parquet "
            "says why, --retry-failed asks "
            "again"
        )


def _print_groups(result: ConversionResult, console: Console) -> None:
    """What did not stay together, since nothing says what it belongs to."""
    by = str(result.plan.options.get("group_by", ""))
    for name in inputs_without(by, result.plan.inputs) if by else ():
        console.print(f"note: no record of {name} has the field {by} (--split-by)", markup=False)
    if result.groups is not None and result.groups.documents_without:
        console.print(
            f"{plural(result.groups.documents_without, 'document')} without {by}: each is a "
            "group of its own",
            markup=False,
        )


def _print_names(result: ConversionResult, console: Console) -> None:
    """What pseudonyms leave to be told; it is said also where nothing was found."""
    if not result.plan.options.get("pseudonymise"):
        return
    notes = result.tally.notes
    left = plural(notes.get(DocumentNote.ID_LEFT_IN_TEXT, 0), "document")
    persons = plural(notes.get(DocumentNote.MAYBE_A_PERSON, 0), "document")
    console.print(
        f"what stays: in {left} an id of their own is left in the text (shorter than four "
        "characters, a plain word, or inside a longer word); in "
        f"{persons} a person's name may stand (a plain guess: a title, or two capitalised words in "
        "a row); what the text says otherwise, and what the pictures show, is as it was",
    )


def _print_excluded(result: ConversionResult, console: Console) -> None:
    for entry in result.plan.excluded:
        console.print(f"left out: {entry.file}: {entry.problem}", markup=False)
    for planned in result.plan.inputs:
        members = {segment.member for segment in planned.segments}
        if len(members) > 1:
            console.print(
                f"note: {planned.name} holds {len(members)} .jsonl members; all are read",
                markup=False,
            )


def _print_again(result: ConversionResult, console: Console) -> None:
    crashed = {label for label, event in result.again if event.why == "crashed"}
    if crashed:
        one = len(crashed) == 1
        console.print(
            f"{len(crashed):,} {'unit was' if one else 'units were'} run again after a crash of "
            f"{'its' if one else 'their'} worker or node"
        )
    for label, event in result.again:
        if event.why == "stalled":
            console.print(f"run again: {label}: {event.detail}", markup=False)


def _print_unfit(result: ConversionResult, console: Console) -> None:
    for entry in result.unfit:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in entry.reasons.items())
        console.print(
            f"not of the form: {entry.name}: all of its "
            f"{plural(entry.records, 'record was', 'records were')} dropped ({reasons}); "
            "*.rejects.jsonl says which field did not fit; leave the input out, or "
            "convert it by itself to be told what it looks like",
            markup=False,
        )


def _print_scored(result: ConversionResult, console: Console) -> None:
    scored = result.scored
    if scored is None:
        return
    share = scored.busy_seconds / scored.seconds if scored.seconds else 0.0
    console.print(
        f"{result.plan.options['clip']}: {plural(scored.images, 'image')}, "
        f"{plural(scored.sentences, 'sentence')}; "
        f"the scorers were busy {share:.0%} of their time",
        markup=False,
    )


def _print_ending(result: ConversionResult, console: Console) -> None:
    if result.shards_kept:
        console.print(
            plural(
                result.shards_kept,
                "shard was there already and was kept",
                "shards were there already and were kept",
            )
        )
    if result.interrupted:
        console.print(
            f"interrupted: {plural(result.shards_left, 'shard is', 'shards are')} left; run "
            "the same command again "
            "to go on"
        )
    elif result.failures:
        console.print(
            f"{plural(len(result.failures), 'unit')} failed, "
            f"{plural(result.shards_left, 'shard is', 'shards are')} left; "
            "what is written stays; mend the cause and run the same command again"
        )
    elif result.limited and result.shards_left:
        console.print(
            f"stopped at --limit: {plural(result.shards_left, 'shard is', 'shards are')} "
            "left; run again without it"
        )
    empty = result.complete and result.tally.documents == 0
    if empty and result.plan.num_records:
        console.print("warning: no document was kept: every shard is empty")
    elif empty:
        console.print("warning: the inputs hold no records; there is nothing to write")
    can_ask = "docs_per_shard" in result.plan.options
    if can_ask and result.complete and 0 < result.plan.num_shards < _FEW_SHARDS:
        console.print(
            f"{plural(result.plan.num_shards, 'shard')}: a trainer wants at least ranks x "
            "workers of them "
            "(--num-shards N asks for more)"
        )
    if result.shards_written and result.seconds:
        rate = result.tally.images / result.seconds if not result.shards_kept else None
        speed = f", {rate:,.0f} images/s" if rate else ""
        console.print(
            f"wrote {plural(result.shards_written, 'shard')} in {result.seconds:.1f} s{speed}"
        )


def why_refused(counts: Counter[str]) -> str:
    """No URL may be asked: which, and what opens them."""
    text = "no URL may be asked, so nothing was fetched"
    if counts[FetchStatus.PRIVATE_ADDRESS.value]:
        text += (
            "; --allow-private-hosts also asks loopback, private and link-local addresses (with "
            "--retry-failed, those that were refused here)"
        )
    if counts[FetchStatus.BAD_URL.value]:
        text += "; bad-url: only http and https are asked, without user names"
    return text
