"""Where documents and images go on their way from the input to training, as an inline SVG.

Bars stand for what there is at a stage, bands for what goes on to the next, and bands that turn
away for what is dropped, each with its reason. Heights are to scale. Wide pages have the stages
side by side, phones one below the other: both are drawn, the page shows one. The table beside it
has every reason; the drawing joins the smallest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mmdata.html import numbers
from mmdata.html.markup import Markup, element, shortened
from mmdata.html.svg import label, number_of

_TALL = 132.0  # px; what came in
_BAR = 12.0
_WIDE_STEP = 424.0
_NARROW_STEP = 330.0
_TURN = 118.0  # from a bar to where what is dropped ends
_HEAD = 44.0
_LINE = 21.0  # px, a label
_GAP = 14.0
_MAX_REASONS = 7
_MAX_LABEL = 22  # characters


@dataclass(frozen=True, slots=True)
class Stage:
    """A place on the way.

    Attributes:
        name: `input`, `in the shards`, `used in training`.
        size: what arrived there.
        dropped: what does not go on from there, by reason.
    """

    name: str
    size: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Band:
    label: str
    size: int
    top: float
    tall: float  # px, at least what can be seen
    depth: float  # px of its stage's bar that it takes


def flow(stages: Sequence[Stage], what: str) -> Markup:
    """Both drawings of a way.

    Args:
        stages: at least two, the first with something in it.
        what: goes that way, in the plural.
    """
    words = in_words(stages, what)
    return element("div", _draw(stages, words, wide=True), _draw(stages, words, wide=False))


def in_words(stages: Sequence[Stage], what: str) -> str:
    """What the drawing shows, for those who do not see it."""
    parts = [f"{stages[0].size:,} {what}: {stages[0].name}"]
    for before, after in pairwise(stages):
        lost = sum(before.dropped.values())
        parts.append(f"{lost:,} dropped, {after.size:,} {after.name}")
    return "; ".join(parts)


def _draw(stages: Sequence[Stage], words: str, *, wide: bool) -> Markup:
    whole = max(stages[0].size, 1)
    drawn: list[Markup] = []
    left, top = 0.0, _HEAD
    right = bottom = 0.0
    step = _WIDE_STEP if wide else _NARROW_STEP
    for number, stage in enumerate(stages):
        last = number + 1 == len(stages)
        drawn += _bar(stage, whole, left, top, at_end=last)
        if last:
            bottom = max(bottom, top + _TALL * stage.size / whole)
            break
        bands = _bands(stage, stages[number + 1].size, whole, top)
        drawn += _bands_drawn(bands, left, top, step)
        right = max(right, left + step)
        bottom = max(bottom, bands[-1].top + max(bands[-1].tall, _LINE))
        if wide:
            left += step
        else:
            drawn += _bar(stages[number + 1], whole, left + step, top, at_end=True)
            if number + 2 == len(stages):
                break
            top = bottom + _HEAD + 2 * _GAP
    width, height = right + _BAR + 2, bottom + _GAP
    return element(
        "svg",
        *drawn,
        viewBox=f"0 0 {number_of(width)} {number_of(height)}",
        width=round(width),
        height=round(height),
        class_="flow wide" if wide else "flow narrow",
        role="img",
        aria_label=words,
    )


def _bar(stage: Stage, whole: int, x: float, top: float, *, at_end: bool) -> list[Markup]:
    """A stage: its bar, with name and number above it."""
    tall = max(_TALL * stage.size / whole, 1.5)
    anchor, at = ("end", x + _BAR) if at_end else ("start", x)
    return [
        element(
            "rect",
            element("title", f"{stage.size:,} {stage.name}"),
            class_="stage",
            x=number_of(x),
            y=number_of(top),
            width=number_of(_BAR),
            height=number_of(tall),
            rx=1.5,
        ),
        label(at, top - 26, stage.name, "tick", anchor),
        label(at, top - 9, numbers.count(stage.size), "size", anchor),
    ]


def _bands(stage: Stage, kept: int, whole: int, top: float) -> list[_Band]:
    """What goes on, and below it what is dropped, the most first."""
    scale = _TALL / whole
    bands = [_Band("", kept, top, kept * scale, kept * scale)]
    ordered = sorted(stage.dropped.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered if len(ordered) <= _MAX_REASONS else ordered[: _MAX_REASONS - 1]
    rest = ordered[len(shown) :]
    if rest:
        shown = [*shown, (numbers.plural(len(rest), "other reason"), sum(size for _, size in rest))]
    place = max(top + kept * scale + _GAP, top + _GAP)
    for reason, size in shown:
        tall = max(size * scale, 1.5)
        bands.append(_Band(reason, size, place, tall, size * scale))
        place += max(tall, _LINE) + 3
    return bands


def _bands_drawn(bands: Sequence[_Band], left: float, top: float, step: float) -> list[Markup]:
    whole = sum(band.size for band in bands)
    drawn = []
    start, source = left + _BAR, top
    for number, band in enumerate(bands):
        kept = number == 0
        if not band.size:
            continue
        end = left + step if kept else start + _TURN
        hint = f"{band.size:,} {'go on' if kept else band.label}"
        hint += f" ({numbers.share(band.size, whole)})"
        drawn.append(
            element(
                "path",
                element("title", hint),
                class_="kept" if kept else "dropped",
                d=_ribbon(start, source, end, band.top, band.tall),
            )
        )
        if kept and len(bands) > 1:
            middle = band.top + min(band.tall / 2, band.tall - 4) + 4
            at = (start + end) / 2
            if band.tall > 18:
                drawn.append(label(at, middle, numbers.share(band.size, whole), "on", "middle"))
        elif not kept:
            drawn += _drop_label(band, end, whole)
        source += band.depth
    return drawn


def _drop_label(band: _Band, x: float, whole: int) -> list[Markup]:
    end = element(
        "rect",
        class_="end",
        x=number_of(x),
        y=number_of(band.top),
        width=4,
        height=number_of(band.tall),
    )
    y = band.top + max(band.tall, 1.5) / 2 + 4
    reason = element("tspan", shortened(band.label, _MAX_LABEL), class_="reason")
    size = element("tspan", f"\u2002{band.size:,} · {numbers.share(band.size, whole)}")
    return [end, label(x + 10, y, [reason, size], "drop", "start")]


def _ribbon(x1: float, y1: float, x2: float, y2: float, tall: float) -> str:
    """A band of even height from one edge to another."""
    half = (x1 + x2) / 2
    points = [x1, y1, half, y1, half, y2, x2, y2, tall]
    a, b, c, d, e, f, g, h, v = (number_of(value) for value in points)
    low, high = number_of(y2 + tall), number_of(y1 + tall)
    return f"M{a} {b}C{c} {d} {e} {f} {g} {h}v{v}C{e} {low} {c} {high} {a} {high}z"
