"""What sections of the page are made of, and the first of them: notices and figures."""

from mmdata.html import numbers
from mmdata.html.markup import Child, Markup, element, shortened
from mmdata.report.contents import Contents
from mmdata.report.summary import Summary
from mmdata.report.training import HELD_OUT, coin_drops


def section(identity: str, title: str, *children: Child) -> Markup:
    """A section with its heading."""
    heading = element("h2", title, id=f"{identity}-title")
    return element("section", heading, *children, id=identity, aria_labelledby=f"{identity}-title")


def notices(contents: Contents) -> Markup | None:
    """What has to be known before any figure is believed."""
    summary, found = contents.summary, []
    if summary.num_problems:
        named = [element("li", f"{path}: {why}") for path, why in summary.problems]
        more = summary.num_problems - len(named)
        if more > 0:
            named.append(element("li", f"and {numbers.plural(more, 'more')}"))
        shards = numbers.plural(contents.num_shards, "shard")
        lead = f"Not in the figures: {summary.num_problems:,} of {shards}."
        found += [element("p", lead), element("ul", named)]
    if summary.shards and not knows_input(summary):
        text = (
            "What came in and was dropped before the shards is not shown: not every shard has a "
            "sidecar and a samples table that agree."
        )
        found.append(element("p", text))
    if not found:
        return None
    return element("div", *found, class_="notice", role="note")


def overview(contents: Contents) -> Markup:
    """The figures that one wants first."""
    summary = contents.summary
    similarity = summary.distributions["similarity"]
    errors, warnings = severities(contents)
    tiles = [
        tile("shards", numbers.count(summary.shards), _read(contents)),
        tile("documents", numbers.count(summary.documents), _of_records(summary)),
        tile("images", numbers.count(summary.images), _formats(summary)),
        tile("sentences", numbers.count(summary.sentences), numbers.num_bytes(summary.text_bytes)),
        tile("image files", numbers.num_bytes(summary.image_bytes), _reencoded(summary)),
        tile(
            "mean similarity",
            numbers.cosine(similarity.mean) if similarity.size else numbers.DASH,
            f"median {numbers.cosine(similarity.quantile(0.5))}" if similarity.size else "",
        ),
        _used_tile(contents),
    ]
    if contents.findings is not None:
        detail = f"level {contents.findings.level}"
        if errors or warnings:
            both = f"{errors:,} / {warnings:,}"
            tiles.append(tile("errors / warnings", both, detail, "bad" if errors else "warn"))
        else:
            tiles.append(tile("findings", "none", detail, "good"))
    if contents.tokens is not None:
        estimate = contents.tokens.estimate(summary.text_bytes)
        number = numbers.plural(contents.tokens.distribution.size, "document")
        tiles.append(tile("text tokens, about", numbers.compact(estimate), f"from {number}"))
    return section("overview", "Overview", element("dl", tiles, class_="tiles"))


def _used_tile(contents: Contents) -> Markup:
    """What an epoch uses of the documents that are there to be trained on, after the coin."""
    use, summary = contents.summary.training, contents.summary
    coin, held_out = coin_drops(use, contents.policy), use.dropped[HELD_OUT]
    documents = use.used - coin
    detail = [
        f"{numbers.plural(documents, 'document')} an epoch, "
        + numbers.plural(use.images_used - coin, "image")
    ]
    if coin:
        detail.append(f"after the coin, which leaves out {coin:,}")
    if held_out:
        detail.append(f"{numbers.plural(held_out, 'document')} of held-out splits not counted")
    share = numbers.share(documents, summary.documents - held_out)
    return tile("used in training", share, "; ".join(detail))


def severities(contents: Contents) -> tuple[int, int]:
    """Errors and warnings of the validator."""
    counts = contents.findings.counts if contents.findings else []
    errors = sum(count.findings for count in counts if count.severity == "error")
    return errors, sum(count.findings for count in counts) - errors


def _read(contents: Contents) -> str:
    summary = contents.summary
    text = numbers.num_bytes(summary.tar_bytes) if summary.num_sidecars else ""
    if summary.shards != contents.num_shards:
        text += f" (of {numbers.plural(contents.num_shards, 'shard')})"
    return text.strip()


def _of_records(summary: Summary) -> str:
    return f"of {numbers.plural(summary.tally.records, 'record')}" if knows_input(summary) else ""


def _formats(summary: Summary) -> str:
    parts = [
        f"{name} {numbers.share(size, summary.images)}"
        for name, size in summary.formats.most_common(3)
    ]
    return shortened(", ".join(parts), 40)


def _reencoded(summary: Summary) -> str:
    if not summary.reencoded:
        return "all unchanged"
    return f"{numbers.share(summary.reencoded, summary.images)} re-encoded"


def tile(name: str, value: str, detail: str, kind: str = "") -> Markup:
    """One figure, with what it is of; `kind` is good, warn or bad."""
    return element(
        "div",
        element("dt", name),
        element("dd", value, class_=f"value {kind}".strip()),
        element("dd", detail, class_="detail"),
        class_="tile panel",
    )


def knows_input(summary: Summary) -> bool:
    """Whether the sidecars tell of all shards, and of the same things as the tables."""
    return (
        summary.num_sidecars == summary.shards
        and not summary.num_problems
        and summary.tally.documents == summary.documents
        and summary.tally.images == summary.images
    )
