"""What `mmdata index` prints at its end."""

from rich.console import Console

from mmdata.wording import plural
from pipelines.repair.index import IndexResult


def print_indexed(result: IndexResult, console: Console | None = None) -> None:
    """Print what an indexing came to."""
    console = console or Console(highlight=False, soft_wrap=True)
    for folder, samples in result.folders.items():
        console.print(f"{folder}: {plural(samples, 'sample')}", markup=False)
    for path, error in result.failures:
        told = error if error.startswith(path) else f"{path}: {error}"
        console.print(f"failed: {told}", markup=False)
    if unreadable := result.tally.notes.get("unreadable", 0):
        console.print(
            f"{plural(unreadable, 'sample')} cannot be read wholly: mmdata validate says why, "
            "mmdata repair writes what can be read of them"
        )
    kept = f", {result.kept:,} of them before" if result.kept else ""
    console.print(plural(result.shards, "shard is", "shards are") + f" indexed{kept}")
    if result.failures:
        console.print("no manifest: mend or remove what failed and run the same command again")
