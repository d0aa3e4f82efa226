"""The section on drops by reason, from the input to training: the drawing and its table."""

from collections.abc import Iterable, Sequence

from mmdata.html import numbers
from mmdata.html.markup import Child, Markup, element, shortened
from mmdata.html.table import table
from mmdata.report.contents import Contents
from mmdata.report.flow import Stage, flow, in_words
from mmdata.report.sections import knows_input, section
from mmdata.report.summary import Summary
from mmdata.report.training import images_dropped
from schemas.manifest import Reject

_MAX_CHARS = 200


def stages(summary: Summary) -> dict[str, list[Stage]]:
    """The way of documents and of images; it begins in the shards where the input is not known."""
    use, tally = summary.training, summary.tally
    found = {
        "documents": [
            Stage("records in the input", tally.records, tally.documents_dropped),
            Stage("in the shards", summary.documents, use.dropped),
            Stage("used in training", use.used, {}),
        ],
        "images": [
            Stage("listed in the input", tally.images_listed, tally.images_dropped),
            Stage("in the shards", summary.images, images_dropped(use)),
            Stage("used in training", use.images_used, {}),
        ],
    }
    if not knows_input(summary):
        found = {what: way[1:] for what, way in found.items()}
    return found


def pipeline(contents: Contents) -> Markup:
    """Drops by reason, from the input to training."""
    policy, summary = contents.policy, contents.summary
    parts: list[Child] = []
    for what, way in stages(summary).items():
        title = element("h3", what.capitalize(), id=f"flow-{what}")
        drawing = flow(way, what) if way[0].size else element("p", "Nothing came in.")
        parts.append(
            element(
                "figure",
                title,
                drawing,
                _reasons(contents, way, what),
                class_="panel way",
                role="group",
                aria_labelledby=f"flow-{what}",
            )
        )
    lead = (
        f"Training is forecast with the trainer's own selection: similarity at least "
        f"{policy.min_similarity:g}, "
        f"files of at least {numbers.num_bytes(policy.min_image_bytes)}, "
        f"{policy.min_images} to {numbers.plural(policy.max_images, 'image')} a document."
    )
    if summary.training.single_image:
        lead += (
            f" {summary.training.single_image:,} of the used documents have one used image: the "
            "trainer's coin still decides about them."
        )
    return section("flow", "From input to training", element("p", lead, class_="lead"), *parts)


def _reasons(contents: Contents, way: Sequence[Stage], what: str) -> Markup:
    """Every reason with its meaning and examples."""
    names = {"records in the input": "input → shard", "listed in the input": "input → shard"}
    rows = []
    for stage in way:
        whole = stage.size
        for reason, size in sorted(stage.dropped.items(), key=lambda item: (-item[1], item[0])):
            before = stage.name in names
            action = "dropped-document" if what == "documents" else "dropped-image"
            examples = contents.summary.examples.get((action, reason), []) if before else []
            meaning = None if before else contents.meanings.get(reason)
            rows.append(
                element(
                    "tr",
                    element("th", element("code", reason), scope="row"),
                    element("td", names.get(stage.name, "shard → training"), class_="nowrap"),
                    element("td", numbers.count(size), class_="num"),
                    element("td", numbers.share(size, whole), class_="num"),
                    element("td", _examples(examples) if examples else meaning),
                )
            )
    if not rows:
        return element("p", f"No {what} are dropped on the way.", class_="muted")
    caption = f"{what.capitalize()} dropped, by reason. {in_words(way, what)}"
    heads = ("reason", "step", "!dropped", "!share of step", "examples, or what it means")
    return element(
        "details",
        element("summary", f"All reasons ({len(rows)})"),
        table(caption, heads, rows),
    )


def _examples(rejects: Iterable[Reject]) -> Markup:
    lines = []
    for reject in rejects:
        member = f" > {reject.member}" if reject.member else ""
        where = f"{reject.file}{member}, record {reject.record}"
        image = f", image {reject.image}" if reject.image else ""
        detail = f": {reject.detail}" if reject.detail else ""
        lines.append(element("li", shortened(f"{where}{image}{detail}", _MAX_CHARS), dir="auto"))
    return element("ul", lines, class_="plain")
