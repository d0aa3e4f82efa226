"""Forecasts for people: what is used and lost, by threshold, and what the answer rests on."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmdata.forecast.openflamingo import IN_WORDS
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.wording import plural
from schemas.forecast import Basis, Forecast, PeerForecast


def render_forecast(forecast: Forecast, console: Console) -> None:
    """Print what training would use."""
    _heading(console, f"Forecast, {_settings(forecast)}")
    _say(console, _basis(forecast.basis, forecast.looked_at, forecast.documents, forecast.seed))
    table = _table("documents", "share")
    _row(table, "used", forecast.used, forecast.looked_at)
    for reason, count in forecast.dropped.items():
        _row(table, f"  dropped: {reason}", count, forecast.looked_at)
    console.print(table)
    if forecast.rule == "interleaved":
        _say(
            console,
            f"of those used, {forecast.single_image:,} have one image: a coin drops "
            f"{forecast.coin_drops:,.0f} of them each epoch",
        )
        table = _table("images", "share")
        _row(table, "used", forecast.images_used, forecast.images)
        for reason, count in forecast.images_dropped.items():
            _row(table, f"  dropped: {reason}", count, forecast.images)
        _row(table, "  in dropped documents", forecast.images_of_dropped_documents, forecast.images)
        console.print(table)
    _say(console, f"{forecast.images_per_document:.2f} images a document{_tokens(forecast)}")
    plus = f" ± {forecast.uncertainty:,.0f}" if forecast.uncertainty else ""
    _say(
        console,
        f"an epoch: {forecast.samples_per_epoch:,.0f}{plus} samples, "
        f"{plural(forecast.steps_per_epoch, 'step')} "
        f"of {forecast.settings.batch_size:,}",
    )
    if forecast.tokens is None:
        limit = MAX_TOKENS[forecast.rule]
        _say(
            console,
            f"without --tokenizer no text is cut here; training cuts at {limit} tokens (its "
            "default), and uses no image behind the cut",
        )
    for open_ones in _unsettled(forecast):
        _say(console, open_ones)
    if forecast.thresholds:
        _thresholds(forecast, console)
    _unread(forecast.unread, console)


def render_peer(peer: PeerForecast, console: Console) -> None:
    """Print what another loader would do."""
    _heading(console, "OpenFlamingo's loader with the same shards")
    _say(console, _basis(peer.basis, peer.looked_at, peer.documents, peer.seed))
    captions = peer.rule == "caption"
    table = _table("pairs" if captions else "documents", "share")
    _row(table, "used", peer.used, peer.looked_at)
    if not captions:
        _row(table, "  with pictures at other pictures' sentences", peer.mispaired, peer.looked_at)
    _row(table, "  with media tags in their text", peer.extra_tags, peer.looked_at)
    for reason, count in peer.dropped.items():
        _row(table, f"lost: {IN_WORDS.get(reason, reason)}", count, peer.looked_at)
    console.print(table)
    if not captions:
        _say(console, f"its coin drops {peer.coin_drops:,.0f} of those used each epoch")
    _unread(peer.unread, console)


def _settings(forecast: Forecast) -> str:
    asked = forecast.settings
    if forecast.rule == "caption":
        return "captions"
    least = plural(asked.min_image_bytes, "byte")
    words = f"threshold {asked.min_similarity:g}, images of {least} or more"
    return f"{words}, {asked.min_images} to {asked.max_images} a document"


def _basis(basis: Basis, looked_at: int, documents: int, seed: int | None) -> str:
    if basis == "sample":
        return f"from a sample of {looked_at:,} of {plural(documents, 'document')} (seed {seed})"
    source = "the samples tables" if basis == "tables" else "the documents"
    return f"from {source} of {plural(looked_at, 'document')}"


def _tokens(forecast: Forecast) -> str:
    found, limit = forecast.tokens, forecast.settings.max_tokens
    if found is None:
        return ""
    return (
        f", {found.per_document:.1f} tokens "
        f"({plural(found.at_limit, 'document has', 'documents have')} all {limit}); "
        f"{found.padding:.1%} of a batch is padding"
    )


def _unsettled(forecast: Forecast) -> Iterator[str]:
    """What the tables leave open, by why."""
    small, rest = forecast.unsettled_small, forecast.unsettled - forecast.unsettled_small
    if small:
        yield (
            f"{plural(small, 'document')} lost small images and may be assigned anew; the tables "
            "do not tell how: --exact reads these"
        )
    if rest:
        yield (
            f"{plural(rest, 'document')} may be assigned otherwise: the tables do not tell how "
            "their alignment came about: --exact reads these"
        )


def _thresholds(forecast: Forecast, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("threshold", "documents", "share", "images"):
        table.add_column(heading, justify="right")
    for row in forecast.thresholds:
        table.add_row(
            f"{row.min_similarity:.2f}", f"{row.documents:,}", f"{row.share:.1%}", f"{row.images:,}"
        )
    before = ", before texts are cut" if forecast.tokens else ""
    _say(console, f"what other thresholds would leave{before}:")
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _row(table: Table, name: str, count: int, whole: int) -> None:
    table.add_row(Text(name), f"{count:,}", f"{count / whole:.1%}" if whole else "")


def _heading(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", style="bold"), soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _unread(unread: list[str], console: Console) -> None:
    for problem in unread:
        console.print(Text(f"not read: {problem}", style="bold red"), soft_wrap=True)
