"""The parts of the page but for charts and gallery: figures, flow, findings, provenance."""

from collections.abc import Iterable, Mapping, Sequence

from mmdata.report import numbers
from mmdata.report.contents import Contents, FindingShown, Folder, RuleFound
from mmdata.report.flow import Stage, flow, in_words
from mmdata.report.markup import Child, Markup, element, shortened
from mmdata.report.summary import Summary
from schemas.manifest import Reject

_MAX_FINDINGS = 10  # shown of each rule
_MAX_INPUTS = 20
_MAX_FOLDERS = 10
_MAX_CHARS = 200


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
        lead = f"{summary.num_problems:,} of {numbers.plural(contents.num_shards, 'shard')} "
        found += [element("p", lead + "are not in the figures:"), element("ul", named)]
    if summary.shards and not _knows_input(summary):
        text = (
            f"The sidecars of {summary.num_sidecars:,} of {summary.shards:,} shards agree with "
            "their tables; what came in and was dropped before the shards is not shown."
        )
        found.append(element("p", text))
    if not found:
        return None
    return element("div", *found, class_="notice", role="note")


def overview(contents: Contents) -> Markup:
    """The figures that one wants first."""
    summary, use = contents.summary, contents.summary.training
    similarity = summary.distributions["similarity"]
    errors, warnings = severities(contents)
    tiles = [
        _tile("shards", numbers.count(summary.shards), _read(contents)),
        _tile("documents", numbers.count(summary.documents), _of_records(summary)),
        _tile("images", numbers.count(summary.images), _formats(summary)),
        _tile("sentences", numbers.count(summary.sentences), numbers.num_bytes(summary.text_bytes)),
        _tile("image files", numbers.num_bytes(summary.image_bytes), _reencoded(summary)),
        _tile(
            "mean similarity",
            numbers.cosine(similarity.mean) if similarity.size else numbers.DASH,
            f"median {numbers.cosine(similarity.quantile(0.5))}" if similarity.size else "",
        ),
        _tile(
            "used in training",
            numbers.share(use.documents, summary.documents),
            f"{use.documents:,} documents, {use.images:,} images",
        ),
    ]
    if contents.findings is not None:
        detail = f"level {contents.findings.level}"
        if errors or warnings:
            both = f"{errors:,} / {warnings:,}"
            tiles.append(_tile("errors / warnings", both, detail, "bad" if errors else "warn"))
        else:
            tiles.append(_tile("findings", "none", detail, "good"))
    if contents.tokens is not None:
        estimate = contents.tokens.estimate(summary.text_bytes)
        number = numbers.plural(contents.tokens.distribution.size, "document")
        tiles.append(_tile("text tokens, about", numbers.compact(estimate), f"from {number}"))
    return section("overview", "Overview", element("dl", tiles, class_="tiles"))


def severities(contents: Contents) -> tuple[int, int]:
    """Errors and warnings of the validator."""
    counts = contents.findings.counts if contents.findings else []
    errors = sum(count.findings for count in counts if count.severity == "error")
    return errors, sum(count.findings for count in counts) - errors


def _read(contents: Contents) -> str:
    summary = contents.summary
    text = numbers.num_bytes(summary.tar_bytes) if summary.num_sidecars else ""
    if summary.shards != contents.num_shards:
        text += f" of {contents.num_shards:,} asked for"
    return text.strip()


def _of_records(summary: Summary) -> str:
    return f"of {summary.tally.records:,} records" if _knows_input(summary) else ""


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


def _tile(name: str, value: str, detail: str, kind: str = "") -> Markup:
    return element(
        "div",
        element("dt", name),
        element("dd", value, class_=f"value {kind}".strip()),
        element("dd", detail, class_="detail"),
        class_="tile panel",
    )


def _knows_input(summary: Summary) -> bool:
    """Whether the sidecars tell of all shards, and of the same things as the tables."""
    return (
        summary.num_sidecars == summary.shards
        and not summary.num_problems
        and summary.tally.documents == summary.documents
        and summary.tally.images == summary.images
    )


def stages(summary: Summary) -> dict[str, list[Stage]]:
    """The way of documents and of images; it begins in the shards where the input is not known."""
    use, tally = summary.training, summary.tally
    found = {
        "documents": [
            Stage("records in the input", tally.records, tally.documents_dropped),
            Stage("in the shards", summary.documents, use.documents_dropped),
            Stage("used in training", use.documents, {}),
        ],
        "images": [
            Stage("listed in the input", tally.images_listed, tally.images_dropped),
            Stage("in the shards", summary.images, use.images_dropped),
            Stage("used in training", use.images, {}),
        ],
    }
    if not _knows_input(summary):
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
        f"{policy.min_images} to {policy.max_images} images a document."
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
                    element("td", names.get(stage.name, "shard → training")),
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


def table(caption: str, heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """A table in a box that scrolls sideways by itself; heads with `!` stand over numbers."""
    cells = [
        element("th", head.removeprefix("!"), scope="col", class_="num" if head[0] == "!" else None)
        for head in heads
    ]
    inner = element(
        "table",
        element("caption", caption, class_="hidden"),
        element("thead", element("tr", cells)),
        element("tbody", rows),
    )
    return element(
        "div", inner, class_="scroll", tabindex=0, role="region", aria_label=shortened(caption, 80)
    )


def findings(contents: Contents) -> Markup:
    """What the validator found, by rule."""
    report = contents.findings
    if report is None:
        text = element("p", "Not looked for (--check none).", class_="muted")
        return section("findings", "Findings", text)
    lead = (
        f"mmdata validate --level {report.level}, {numbers.plural(report.shards, 'shard')}. "
        "Errors fail a validation, warnings do not."
    )
    if not report.counts:
        clean = element("p", "Nothing was found.", class_="good panel padded")
        return section("findings", "Findings", element("p", lead, class_="lead"), clean)
    shown: dict[str, list[FindingShown]] = {}
    for finding in report.findings:
        shown.setdefault(finding.code, []).append(finding)
    rows = [_rule_row(rule, shown.get(rule.code, [])) for rule in report.counts]
    heads = ("rule", "severity", "!findings", "!shards", "meaning and remedy")
    return section(
        "findings",
        "Findings",
        element("p", lead, class_="lead"),
        element("div", table("Findings by rule", heads, rows), class_="panel"),
    )


def _rule_row(rule: RuleFound, shown: Sequence[FindingShown]) -> Markup:
    lines = [element("li", _finding_line(finding)) for finding in shown[:_MAX_FINDINGS]]
    more = rule.findings - len(lines)
    if more > 0:
        lines.append(element("li", f"and {more:,} more: mmdata validate lists them"))
    first = min(len(shown), _MAX_FINDINGS)
    detail = element(
        "details",
        element("summary", f"The first {first}" if more > 0 else "Where"),
        element("ul", lines, class_="plain"),
    )
    return element(
        "tr",
        element("th", element("code", rule.code), scope="row"),
        element("td", element("span", rule.severity, class_=f"chip {_severity(rule.severity)}")),
        element("td", numbers.count(rule.findings), class_="num"),
        element("td", numbers.count(rule.shards), class_="num"),
        element("td", f"{rule.meaning}: {rule.remedy}", detail if shown else None),
    )


def _severity(name: str) -> str:
    """A class of the style sheet; never what a file says."""
    return "bad" if name == "error" else "warn"


def _finding_line(finding: FindingShown) -> str:
    where = " ".join(part for part in (finding.shard, finding.key, finding.path) if part)
    return shortened(f"{where}: expected {finding.expected}, got {finding.got}", 2 * _MAX_CHARS)


def provenance(contents: Contents) -> Markup:
    """Where the shards come from and how they were made."""
    folders = [_folder(folder) for folder in contents.folders[:_MAX_FOLDERS]]
    more = len(contents.folders) - len(folders)
    if more > 0:
        folders.append(element("p", f"and {numbers.plural(more, 'more folder')}"))
    return section("provenance", "Provenance", *folders)


def _folder(folder: Folder) -> Markup:
    manifest = folder.manifest
    title = element("h3", element("code", folder.path))
    if manifest is None:
        text = (
            f"{numbers.plural(folder.shards, 'shard')} without a manifest that can be read: the "
            "conversion is not complete, or other tools wrote them."
        )
        return element("div", title, element("p", text), class_="panel padded")
    alignment = folder.alignment
    facts: dict[str, Child] = {
        "shards": numbers.count(folder.shards),
        "kind, layout": f"{manifest.kind}, {manifest.layout}",
        "format version": manifest.format_version,
        "alignment": alignment.kind,
        "similarities": alignment.similarity_source or "not said",
        "fingerprint": element("code", shortened(manifest.fingerprint, 64)),
    }
    pairs = [[element("dt", name), element("dd", value)] for name, value in facts.items()]
    return element(
        "div",
        title,
        element("dl", pairs, class_="facts"),
        _inputs(folder),
        _mapping("Options", manifest.options),
        _mapping("Versions", manifest.versions),
        class_="panel padded",
    )


def _inputs(folder: Folder) -> list[Markup]:
    manifest = folder.manifest
    if manifest is None:
        return []
    rows = [
        element(
            "tr",
            element("th", shortened(entry.file, _MAX_CHARS), scope="row"),
            element("td", numbers.count(entry.records), class_="num"),
            element("td", numbers.num_bytes(entry.bytes), class_="num"),
            element("td", element("code", shortened(entry.crc32, 16))),
        )
        for entry in manifest.inputs[:_MAX_INPUTS]
    ]
    more = len(manifest.inputs) - len(rows)
    records = sum(entry.records for entry in manifest.inputs)
    title = f"{numbers.plural(len(manifest.inputs), 'input')}, {records:,} records"
    parts = [
        element(
            "details",
            element("summary", title),
            table("Inputs", ("file", "!records", "!size", "crc32"), rows),
            element("p", f"and {more:,} more in manifest.json") if more > 0 else None,
        )
    ]
    if manifest.excluded_inputs:
        lines = [
            element("li", shortened(f"{entry.file}: {entry.problem}", _MAX_CHARS))
            for entry in manifest.excluded_inputs[:_MAX_INPUTS]
        ]
        title = f"{numbers.plural(len(manifest.excluded_inputs), 'input')} left out"
        parts.append(element("details", element("summary", title), element("ul", lines)))
    return parts


def _mapping(title: str, values: Mapping[str, object]) -> Markup | None:
    if not values:
        return None
    rows = [
        element(
            "tr",
            element("th", shortened(name, 60), scope="row"),
            element("td", element("code", shortened(str(value), _MAX_CHARS))),
        )
        for name, value in sorted(values.items())
    ]
    summary = element("summary", f"{title} ({len(rows)})")
    return element("details", summary, table(title, ("name", "value"), rows))
