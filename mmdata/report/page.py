"""The whole report as one HTML file that needs nothing else and reaches for nothing.

Its Content-Security-Policy allows the one style and the one script that it carries, by their
hashes, and pictures from data: URIs; so even markup that got in could neither run nor fetch. It
holds no time and no random number: the same dataset gives the same bytes.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from mmdata.report import numbers
from mmdata.report.cards import gallery
from mmdata.report.charts import Chart, figure
from mmdata.report.contents import Contents
from mmdata.report.distribution import Distribution
from mmdata.report.findings import findings
from mmdata.report.markup import Markup, element, joined, raw
from mmdata.report.pipeline import pipeline
from mmdata.report.provenance import provenance
from mmdata.report.sections import notices, overview, section
from mmdata.report.series import series
from mmdata.report.shares import shares

_SECTIONS = {
    "overview": "Overview",
    "flow": "Flow",
    "distributions": "Distributions",
    "findings": "Findings",
    "provenance": "Provenance",
    "gallery": "Gallery",
}
_MAX_POINTS = 60


def render(contents: Contents) -> bytes:
    """The page, as UTF-8."""
    style, script = asset("report.css"), asset("report.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_source(style)}",
            f"script-src {_source(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{contents.title} - dataset report"),
        element("link", rel="icon", href="data:,"),
        raw("style", style),
        raw("script", script),
    )
    body = element(
        "body",
        element("a", "Skip to the figures", href="#main", class_="skip"),
        _header(contents),
        element(
            "main",
            notices(contents),
            overview(contents),
            pipeline(contents),
            distributions(contents),
            findings(contents),
            provenance(contents),
            gallery(contents),
            id="main",
        ),
        element("footer", element("p", "Made by mmdata report; it loads nothing from anywhere.")),
    )
    page = joined([Markup("<!doctype html>\n"), element("html", head, body, lang="en"), "\n"])
    return page.encode("utf-8")


@cache
def asset(name: str) -> str:
    """A file of ours that goes into the page."""
    return (files("mmdata.report") / "assets" / name).read_text(encoding="utf-8")


def _source(content: str) -> str:
    """How a policy names content of the page: by its hash."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode('ascii')}'"


def _header(contents: Contents) -> Markup:
    links = [
        element("li", element("a", title, href=f"#{identity}"))
        for identity, title in _SECTIONS.items()
    ]
    kinds = sorted({f.manifest.kind for f in contents.folders if f.manifest is not None})
    parts = [numbers.plural(contents.num_shards, "shard"), *kinds]
    themes = [
        element(
            "label",
            element("input", type="radio", name="theme", value=value, checked=value == "auto"),
            element("span", words),
        )
        for value, words in (("auto", "Auto"), ("light", "Light"), ("dark", "Dark"))
    ]
    theme = element("legend", "Theme", class_="hidden")
    return joined(
        [
            element(
                "header",
                element(
                    "div",
                    element("p", "Dataset report", class_="kicker"),
                    element("h1", contents.title),
                    element("p", " · ".join(parts), class_="muted"),
                ),
                element("fieldset", theme, themes, id="theme"),
                class_="top",
            ),
            element("nav", element("ul", links), aria_label="Sections"),
        ]
    )


def distributions(contents: Contents) -> Markup:
    """All charts."""
    drawn = []
    for name, chart in _charts(contents).items():
        drawn.append(figure(chart, contents.summary.distributions[name]))
        if name == "image_bytes":
            formats = contents.summary.formats
            drawn.append(shares("c-formats", "Formats of image files", formats, "images"))
            drawn.append(shares("c-kept", "Image files as they came", _kept(contents), "images"))
    if contents.tokens is not None:
        drawn.append(_tokens(contents))
    points = _by_shard(contents)
    if len(points) > 1:
        note = "Shards that stand apart from the others may have been made in another way."
        drawn.append(series("c-shards", "Mean similarity across the shards", points, note))
    return section("distributions", "Distributions", element("div", *drawn, class_="charts"))


def _charts(contents: Contents) -> dict[str, Chart]:
    policy, found = contents.policy, contents.summary.distributions
    count, px, size, cos = numbers.count, numbers.pixels, numbers.num_bytes, numbers.cosine
    below = found["similarity"].share_below(policy.min_similarity)
    negative = _share_negative(found["margin"])
    return {
        "images": Chart(
            id="c-images", title="Images per document", of="documents", values=count, ticks=count
        ),
        "sentences": Chart(
            id="c-sentences",
            title="Sentences per document",
            of="documents",
            values=count,
            ticks=count,
        ),
        "text_bytes": Chart(
            id="c-text", title="Text per document", of="documents", values=size, ticks=size
        ),
        "longest_side": Chart(
            id="c-long", title="Longest side of an image", of="images", values=px, ticks=count
        ),
        "shortest_side": Chart(
            id="c-short", title="Shortest side of an image", of="images", values=px, ticks=count
        ),
        "image_bytes": Chart(
            id="c-bytes",
            title="Bytes of an image file",
            of="images",
            values=size,
            ticks=size,
            mark=(policy.min_image_bytes, "training's least"),
        ),
        "similarity": Chart(
            id="c-similarity",
            title="Similarity to the matched sentence",
            of="images",
            values=cos,
            ticks=numbers.short_cosine,
            mark=(policy.min_similarity, "training's least"),
            note=f"{below:.1%} of the images are below {policy.min_similarity:g}.",
        ),
        "margin": Chart(
            id="c-margin",
            title="Assignment margin",
            of="images",
            values=cos,
            ticks=numbers.short_cosine,
            mark=(0.0, "0"),
            note=(
                "Similarity to the matched sentence minus the best other one. "
                f"{negative:.1%} are below 0: another image took the sentence they fit best."
            ),
        ),
    }


def _kept(contents: Contents) -> dict[str, int]:
    """How many of the source's files are in the shards byte for byte."""
    again = contents.summary.reencoded
    return {"unchanged": contents.summary.images - again, "re-encoded": again}


def _by_shard(contents: Contents) -> list[tuple[str, float]]:
    """Mean similarity of at most 60 runs of shards, in order; those without images left out."""
    lines = sorted(contents.summary.by_shard.items())
    size = -(-len(lines) // _MAX_POINTS) or 1
    points = []
    for start in range(0, len(lines), size):
        run = lines[start : start + size]
        images = sum(counts[1] for _, counts in run)
        if images:
            first, last = run[0][0], run[-1][0]
            name = f"shard {first:,}" if first == last else f"shards {first:,} to {last:,}"
            points.append((name, sum(counts[2] for _, counts in run) / images))
    return points


def _share_negative(margin: Distribution) -> float:
    return margin.share_below(0.0)


def _tokens(contents: Contents) -> Markup:
    tokens = contents.tokens
    if tokens is None:
        return joined([])
    number = tokens.distribution.size
    note = (
        f"Text tokens of {numbers.plural(number, 'document')} drawn at random (seed "
        f"{contents.seed}), by {tokens.tokenizer}; tags and end tokens come on top."
    )
    if tokens.unreadable:
        note += f" {tokens.unreadable:,} more could not be read."
    chart = Chart(
        id="c-tokens",
        title="Text tokens per document",
        of="documents",
        values=numbers.count,
        ticks=numbers.compact,
        note=note,
    )
    return figure(chart, tokens.distribution)
