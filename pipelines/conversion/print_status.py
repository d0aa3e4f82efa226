"""What `mmdata status` prints."""

from rich.console import Console
from rich.table import Table

from pipelines.conversion.print import print_dropped
from pipelines.conversion.space import human_bytes, human_seconds
from pipelines.conversion.status import RunStatus


def print_status(found: RunStatus, console: Console | None = None) -> None:
    """Print how far a conversion is."""
    console = console or Console(highlight=False, soft_wrap=True)
    tally = found.tally
    console.print(f"{found.output}: {found.state}", markup=False)
    table = Table(show_header=False)
    table.add_column("what")
    table.add_column("how much", justify="right")
    rows = [
        ("shards", f"{found.shards_done:,} of {found.shards_total:,}"),
        ("records", f"{found.records_done:,} of {found.records_total:,}"),
        ("documents", f"{tally.documents:,}"),
        ("images", f"{tally.images:,}"),
        ("image files", human_bytes(tally.image_bytes)),
    ]
    if found.drafts:
        rows.append(("shards to look through for duplicates", f"{found.drafts:,}"))
    if found.state == "running" and found.records_per_second:
        rows.append(("records/s lately", f"{found.records_per_second:,.0f}"))
    if found.seconds_left is not None:
        rows.append(("time left", human_seconds(found.seconds_left)))
    if found.cleaned is not None:
        rows.append(("leftovers removed", f"{found.cleaned:,}"))
    elif found.leftovers:
        rows.append(("temporary files", f"{found.leftovers:,}"))
    for what, amount in rows:
        table.add_row(what, amount)
    console.print(table)
    print_dropped(tally, console)
    if found.holder is not None:
        console.print(
            f"held by process {found.holder.pid} on {found.holder.host}, heard of "
            f"{found.heartbeat_seconds:.0f} s ago",
            markup=False,
        )
    if found.state in ("stopped", "crashed"):
        console.print("not complete: run the same command again to go on")
