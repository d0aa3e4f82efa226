"""What `mmdata fetch-images` prints at its end."""

from rich.console import Console
from rich.table import Table

from mmdata.wording import plural
from pipelines.conversion.print import from_here, why_refused
from pipelines.conversion.space import human_bytes
from pipelines.fetch_images.run import FetchResult


def print_fetched(result: FetchResult, console: Console | None = None) -> None:
    """Print what became of the images that were to be fetched."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print(f"images -> {from_here(result.output)}", markup=False)
    table = Table()
    table.add_column("how it ended")
    table.add_column("images", justify="right")
    for how, count in sorted(result.counts.items()):
        table.add_row(how, f"{count:,}")
    console.print(table)
    if result.all_refused:
        console.print(why_refused(result.counts))
    for label, failure in result.failures:
        console.print(f"failed: {label}: {failure.error}", markup=False)
    if result.files_kept:
        console.print(
            plural(result.files_kept, "file of documents was", "files of documents were")
            + " through before (--retry-failed asks again for what failed)"
        )
    if result.interrupted:
        console.print("interrupted: run the same command again to go on")
    elif set(result.counts) - {"ok", "there"}:
        console.print("each of them: *.outcomes.parquet (status, http_status, detail)")
    fetched = result.counts["ok"]
    if fetched and result.seconds:
        console.print(
            f"fetched {plural(fetched, 'image')}, {human_bytes(result.image_bytes)}, in "
            f"{result.seconds:.1f} s, {fetched / result.seconds:,.0f} images/s"
        )
