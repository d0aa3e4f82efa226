"""The section on where the shards come from and how they were made."""

from collections.abc import Mapping

from mmdata.html import numbers
from mmdata.html.markup import Child, Markup, element, shortened
from mmdata.html.table import table
from mmdata.report.contents import Contents, Folder, ManifestFacts
from mmdata.report.sections import section

_MAX_INPUTS = 20
_MAX_FOLDERS = 10
_MAX_CHARS = 200


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
        _inputs(manifest),
        _mapping("Options", manifest.options),
        _mapping("Versions", manifest.versions),
        class_="panel padded",
    )


def _inputs(manifest: ManifestFacts) -> list[Markup]:
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
    title = f"{numbers.plural(len(manifest.inputs), 'input')}, {numbers.plural(records, 'record')}"
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
            element("td", element("code", shortened(str(value), _MAX_CHARS) or "(empty)")),
        )
        for name, value in sorted(values.items())
    ]
    summary = element("summary", f"{title} ({len(rows)})")
    return element("details", summary, table(title, ("name", "value"), rows))
