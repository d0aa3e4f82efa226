"""Sections on what the run learned and how fast: figures, curves, speed."""

from collections.abc import Sequence

from flamingo.report.curves import Curve, Panel, panel, running_mean
from flamingo.report.record import Points, RunRecord, names_in, number, points
from flamingo.telemetry.console import duration
from flamingo.telemetry.losses import end_losses
from mmdata.html import numbers
from mmdata.html.markup import Child, Markup, element, shortened
from mmdata.html.numbers import Format
from mmdata.report.sections import section, tile

_NAME_CHARS = 40  # of a stream
_LOG_SPREAD = 50.0  # greatest to median value from which on a chart goes by powers of ten


def notices(record: RunRecord) -> Markup | None:
    """What is not in the figures."""
    if not record.problems:
        return None
    listed = element("ul", [element("li", problem) for problem in record.problems])
    return element("div", element("p", "Not in the figures:"), listed, class_="notice", role="note")


def overview(record: RunRecord) -> Markup:
    """The figures that one wants first."""
    seconds = sum(value for _, value in points(record.steps, "seconds"))
    tokens = sum(value for _, value in points(record.steps, "tokens"))
    samples = sum(value for _, value in points(record.steps, "samples"))
    skipped = sum(step.get("skipped") is True for step in record.steps)
    resumed = sum(event.get("event") == "resumed" for event in record.events)
    tiles = [
        tile("steps", numbers.count(len(record.steps)), _planned(record)),
        tile("time in steps", duration(seconds), _share_waited(record, seconds)),
        *(_loss_tile(name, _losses(record, name)) for name in _streams(record)[:3]),
        *_validation_tiles(record),
        tile("samples", numbers.compact(samples), f"{numbers.compact(tokens)} tokens"),
        tile("tokens a second", _rate(tokens, seconds), f"{_rate(samples, seconds)} samples/s"),
    ]
    mfu = points(record.steps, "interval", "mfu")
    if mfu:
        padded = points(record.steps, "interval", "mfu_with_padding")
        with_padding = f"; {_mean(padded):.1%} with padding" if padded else ""
        tiles.append(tile("MFU", f"{_mean(mfu):.1%}", f"mean over the run{with_padding}"))
    detail = f"{numbers.plural(resumed, 'resume')}"
    tiles.append(
        tile("skipped steps", numbers.count(skipped), detail, "warn" if skipped else "good")
    )
    return section("overview", "Overview", element("dl", tiles, class_="tiles"))


def training(record: RunRecord) -> Markup:
    """Loss, validation, learning rate, gradient norm."""
    losses = []
    for name in _streams(record):
        found = _losses(record, name)
        losses.append(_with_spread(Curve(name, running_mean(found)), found))
    measured = _by_name(record.validation, "losses", dots=True)
    perplexities = _by_name(record.validation, "perplexity", dots=True)
    rates = [Curve("learning rate", points(record.steps, "learning_rate"))]
    norms = points(record.steps, "gradient_norm")
    charts = [
        _panel(
            record,
            "c-loss",
            "Training loss, nats per token",
            losses,
            _loss,
            note="The line is a running mean over 5% of the run; behind it, each step.",
        ),
        _panel(record, "c-validation", "Validation loss, nats per token", measured, _loss),
        _panel(
            record,
            "c-perplexity",
            "Validation perplexity",
            perplexities,
            _short,
            log=_is_spread([y for _, y in points(record.validation, "perplexity")]),
        ),
        _panel(record, "c-rate", "Learning rate", rates, _exponent, low=0.0),
        _panel(
            record,
            "c-norm",
            "Gradient norm, before clipping",
            [_with_spread(Curve("norm", running_mean(norms)), norms)],
            _short,
            low=0.0,
            log=_is_spread([y for _, y in norms]),
            note="A dotted line is a resume." if _resumes(record) else "",
        ),
    ]
    return section("training", "Training", grid(charts))


def speed(record: RunRecord) -> Markup:
    """How fast, and what the time went into."""
    tokens = [Curve("tokens/s", points(record.steps, "interval", "tokens_per_second"))]
    samples = _by_name(record.steps, "interval", "samples_per_second_per_gpu")
    whole, waiting = _times(record, "step_seconds"), _times(record, "data_seconds")
    charts = [
        _panel(record, "c-tokens", "Tokens a second", tokens, numbers.compact, low=0.0),
        _panel(record, "c-samples", "Samples a second, of one rank", samples, _short, low=0.0),
        _panel(record, "c-step", "Time of a step", whole, seconds_of, low=0.0),
        _panel(record, "c-data", "Of it, waiting for data", waiting, seconds_of, low=0.0),
        _panel(
            record,
            "c-mfu",
            "Model FLOPs utilisation",
            [
                Curve("useful", points(record.steps, "interval", "mfu")),
                Curve("with padding", points(record.steps, "interval", "mfu_with_padding")),
            ],
            percent,
            low=0.0,
            note="Operations that the model needs, of those that the GPUs' peak would do: for "
            "tokens and pictures alone, and for padding and blank pictures too.",
        ),
    ]
    return section("speed", "Speed", grid(charts))


def _panel(
    record: RunRecord,
    name: str,
    title: str,
    curves: Sequence[Curve],
    values: Format,
    *,
    low: float | None = None,
    log: bool = False,
    note: str = "",
) -> Panel:
    """A chart over the steps, with a line where the run was resumed."""
    return Panel(
        id=name,
        title=title,
        curves=curves,
        values=values,
        low=low,
        marks=_resumes(record),
        log=log,
        note=note,
    )


def grid(charts: Sequence[Panel]) -> Markup:
    """Charts side by side; a word where there is none."""
    drawn: list[Child] = [panel(chart) for chart in charts]
    if not any(drawn):
        return element("p", "No values in this run.", class_="muted")
    return element("div", *drawn, class_="charts")


def percent(value: float) -> str:
    """41%, of a share of 1."""
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"


def seconds_of(value: float) -> str:
    """1.25 s, 320 ms."""
    if value and value < 1:
        return f"{value * 1000:.3g}\u00a0ms"
    return f"{value:.3g}\u00a0s"


def _streams(record: RunRecord) -> list[str]:
    return names_in(record.steps, "losses")


def _losses(record: RunRecord, name: str) -> Points:
    used = [step for step in record.steps if step.get("skipped") is not True]
    return points(used, "losses", name)


def _with_spread(curve: Curve, found: Points) -> Curve:
    """The range of every 200th part of the run behind a mean."""
    size = -(-len(found) // 200) or 1
    band = []
    for start in range(0, len(found), size):
        part = found[start : start + size + 1]  # one more, so that neighbours touch
        values = [y for _, y in part]
        band.append((part[0][0], min(values), max(values)))
    return Curve(curve.name, curve.points, band, curve.dots)


def _by_name(lines: Sequence[object], *path: str, dots: bool = False) -> list[Curve]:
    return [
        Curve(name, points(lines, *path, name), dots=dots)  # type: ignore[arg-type]
        for name in names_in(lines, *path)  # type: ignore[arg-type]
    ]


def _times(record: RunRecord, name: str) -> list[Curve]:
    found = [Curve(words, points(record.steps, "interval", name, words)) for words in _TIMES]
    return found if any(curve.points for curve in found) else []


_TIMES = ("mean", "p95")


def _resumes(record: RunRecord) -> list[tuple[float, str]]:
    """Where the run went on after a stop."""
    places = [number(event, "step") for event in record.events if event.get("event") == "resumed"]
    return [(step, f"resumed after step {step:,.0f}") for step in places if step is not None]


def _mean(found: Points) -> float:
    return sum(value for _, value in found) / len(found)


def _planned(record: RunRecord) -> str:
    planned = number(record.options, "max_steps")
    return f"of {planned:,.0f}" if planned else ""


def _share_waited(record: RunRecord, seconds: float) -> str:
    waited = sum(value for _, value in points(record.steps, "wait_seconds"))
    return f"{numbers.share(waited, seconds)} of it waiting for data"


def _loss_tile(name: str, found: Points) -> Markup:
    name = shortened(name, _NAME_CHARS)
    ends = end_losses(found)
    if ends is None:
        return tile(f"training loss, {name}", numbers.DASH, "no finite value")
    first, last = ends
    return tile(f"training loss, {name}", _loss(last.loss), f"{last.of}; {first} at the start")


def _validation_tiles(record: RunRecord) -> list[Markup]:
    tiles = []
    for curve in _by_name(record.validation, "losses")[:3]:
        if curve.points:
            best = min(y for _, y in curve.points)
            value = _loss(curve.points[-1][1])
            tiles.append(
                tile(
                    f"validation loss, {shortened(curve.name, _NAME_CHARS)}",
                    value,
                    f"the last; {_loss(best)} at best",
                )
            )
    return tiles


def _rate(amount: float, seconds: float) -> str:
    return numbers.compact(amount / seconds) if seconds else numbers.DASH


def _is_spread(values: Sequence[float]) -> bool:
    ordered = sorted(value for value in values if value > 0)
    return bool(ordered) and ordered[-1] > _LOG_SPREAD * ordered[len(ordered) // 2]


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _short(value: float) -> str:
    return numbers.compact(value) if abs(value) >= 1000 else f"{value:.3g}"


def _exponent(value: float) -> str:
    return "0" if not value else f"{value:.2g}".replace("e-0", "e\u2212").replace("e-", "e\u2212")
