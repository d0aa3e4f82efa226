"""The whole report of a dataset as one HTML file; `shell` seals it off.

It holds no time and no random number: the same dataset gives the same bytes.
"""

from mmdata.html import numbers
from mmdata.html.markup import Markup, element
from mmdata.html.shell import page
from mmdata.report.cards import gallery
from mmdata.report.charts import Chart, figure
from mmdata.report.contents import Contents
from mmdata.report.findings import findings
from mmdata.report.pipeline import pipeline
from mmdata.report.provenance import provenance
from mmdata.report.sections import notices, overview, section
from mmdata.report.series import series
from mmdata.report.shares import shares
from mmdata.report.tokens import TokenCount

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
    kinds = sorted({f.manifest.kind for f in contents.folders if f.manifest is not None})
    return page(
        notices(contents),
        overview(contents),
        pipeline(contents),
        distributions(contents),
        findings(contents),
        provenance(contents),
        gallery(contents),
        title=contents.title,
        kind="Dataset report",
        about=" · ".join([numbers.plural(contents.num_shards, "shard"), *kinds]),
        sections=_SECTIONS,
        made_by="mmdata report",
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
        drawn.append(_tokens(contents.tokens, contents.seed))
    points = _by_shard(contents)
    if len(points) > 1:
        note = "Shards that stand apart from the others may have been made in another way."
        drawn.append(series("c-shards", "Mean similarity across the shards", points, note))
    return section("distributions", "Distributions", element("div", *drawn, class_="charts"))


def _charts(contents: Contents) -> dict[str, Chart]:
    policy, found = contents.policy, contents.summary.distributions
    count, px, size, cos = numbers.count, numbers.pixels, numbers.num_bytes, numbers.cosine
    below = found["similarity"].share_below(policy.min_similarity)
    negative = found["margin"].share_below(0.0)
    return {
        "images": Chart("c-images", "Images per document", "documents", count),
        "sentences": Chart("c-sentences", "Sentences per document", "documents", count),
        "text_bytes": Chart("c-text", "Text per document", "documents", size),
        "longest_side": Chart("c-long", "Longest side of an image", "images", px, count),
        "shortest_side": Chart("c-short", "Shortest side of an image", "images", px, count),
        "image_bytes": Chart(
            "c-bytes",
            "Bytes of an image file",
            "images",
            size,
            mark=(policy.min_image_bytes, "training's least"),
        ),
        "similarity": Chart(
            "c-similarity",
            "Similarity to the matched sentence",
            "images",
            cos,
            numbers.short_cosine,
            mark=(policy.min_similarity, "training's least"),
            note=f"{below:.1%} of the images are below {policy.min_similarity:g}.",
        ),
        "margin": Chart(
            "c-margin",
            "Assignment margin",
            "images",
            cos,
            numbers.short_cosine,
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


def _tokens(tokens: TokenCount, seed: int) -> Markup:
    number = tokens.distribution.size
    note = (
        f"Text tokens of {numbers.plural(number, 'document')} drawn at random (seed "
        f"{seed}), by {tokens.tokenizer}; tags and end tokens come on top."
    )
    if tokens.unreadable:
        note += f" {tokens.unreadable:,} more could not be read."
    title, count, ticks = "Text tokens per document", numbers.count, numbers.compact
    chart = Chart("c-tokens", title, "documents", count, ticks, note=note)
    return figure(chart, tokens.distribution)
