"""What a repair found of a sample, and how members belong together."""

from dataclasses import dataclass, field
from typing import Any

from mmdata.shards.reader import split_name
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TEXT_EXTENSION
from schemas.manifest import Layout
from schemas.reasons import DocumentDrop

#: A row of a samples table, by column.
Row = dict[str, Any]


@dataclass(slots=True)
class Found:
    """A sample of a tar, or what is left of one.

    Attributes:
        offset: byte offset of its first member's data, or of what stands in its place.
        name: of its first member, as the tar has it; empty where that is not known.
        key: of the sample; empty where it is not known.
        members: (offset, size) of its members' data, by extension.
        notes: (note, detail) of what was set right in the tar.
        lost: (reason, detail) where nothing of it can be used.
        row: of the samples table, where that knows the sample.
        group: that the table tells of it, which nothing in the tar does; empty without one.
        vouched: a header says how long its document is; without one, or with another length, parts
            of two documents may have come together.
    """

    offset: int
    name: str
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    lost: tuple[DocumentDrop, str] | None = None
    row: Row | None = None
    group: str = ""
    vouched: bool = True


def key_and_extension(name: str, layout: Layout) -> tuple[str, str]:
    """A member's name, split; a document's also where readers would split it otherwise."""
    if layout == "interleaved" and name.lower().endswith(".json"):
        return name[: -len(".json")], "json"
    return split_name(name)


def belongs(extension: str, layout: Layout) -> bool:
    """Whether a member of this extension is part of a sample of the layout."""
    if extension == "json":
        return True
    return layout == "pairs" and (extension in IMAGE_EXTENSIONS or extension == TEXT_EXTENSION)
