"""The rules of a tar's structure and of its member names.

The walker (`mmdata.shards.structure`) says what is wrong with blocks; here it gets its codes. Names
are judged as webdataset reads them: the key is everything up to the first dot of the last part of
the path, what has no key or no extension is skipped, and samples are runs of equal keys.
"""

import re
from dataclasses import dataclass, field

from mmdata.shards.reader import split_name
from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.storage.ranges import Slices
from mmdata.validation.findings import Findings
from schemas.manifest import Layout

CODE_OF_DAMAGE = {
    Damage.NOT_A_TAR: "TAR001",
    Damage.EMPTY_FILE: "TAR002",
    Damage.HEADER: "TAR003",
    Damage.CUT: "TAR004",
    Damage.PADDING: "TAR005",
    Damage.END_MARK: "TAR006",
    Damage.TRAILING: "TAR007",
    Damage.LOST: "TAR008",
    Damage.NOT_A_FILE: "TAR009",
    Damage.NOT_OURS: "TAR010",
    Damage.EXTENDED: "TAR011",
}

IMAGE_EXTENSIONS = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"))
TEXT_EXTENSION = "txt"
_CHECKED_EXTENSIONS = IMAGE_EXTENSIONS | {TEXT_EXTENSION, "json"}
_OUR_KEY = re.compile(r"[0-9a-z_-]+")
_OUR_EXTENSIONS = {
    "interleaved": frozenset(("json",)),
    "pairs": frozenset(("jpg", "png", "webp", "txt", "json")),
}


@dataclass(slots=True)
class TarContents:
    """What a tar holds, by name.

    Attributes:
        members: regular files in order.
        names: their (key, extension), aligned with `members`; key "" for what readers skip.
        keys: keys of samples, each once, in order of appearance.
    """

    members: list[Member] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def runs_of(contents: TarContents) -> dict[str, list[int]]:
    """Where each key's runs of members begin, as byte offsets; what readers skip parts no run."""
    runs: dict[str, list[int]] = {}
    before = ""
    for member, (key, _) in zip(contents.members, contents.names, strict=True):
        if key and key != before:
            runs.setdefault(key, []).append(member.offset)
        before = key or before
    return runs


def pictures_by_name(contents: TarContents) -> int | None:
    """Images of a tar, by the names of its members; None where they are inside of documents."""
    kinds = [extension for key, extension in contents.names if key]
    pictures = sum(extension in IMAGE_EXTENSIONS for extension in kinds)
    return None if not pictures and "json" in kinds else pictures


def check_structure(data: Slices, findings: Findings, layout: Layout | None) -> TarContents:
    """Walk the tar, then check the names of its members.

    Args:
        data: the tar.
        findings: take what is found.
        layout: of a shard of ours, from its sidecar; None for anybody's.
    """

    def report(fault: Fault) -> None:
        findings.add(
            CODE_OF_DAMAGE[fault.damage],
            fault.expected,
            fault.got,
            key=fault.name,
            path=f"@{fault.offset}",
        )

    contents = TarContents()
    for member in walk(data, report, ours=layout is not None):
        contents.members.append(member)
        contents.names.append(split_name(member.name))
    contents.keys = list(dict.fromkeys(key for key, _ in contents.names if key))
    unique_names(contents, findings)
    skipped_names(contents, findings)
    unsafe_names(contents, findings)
    if layout is not None:
        our_names(contents, findings, layout)
    else:
        unchecked_names(contents, findings)
    check_samples(contents, findings)
    return contents


def unique_names(contents: TarContents, findings: Findings) -> None:
    """KEY002; readers do not tell extensions apart by their case."""
    if len({member.name.lower() for member in contents.members}) == len(contents.members):
        return
    seen: dict[tuple[str, ...], int] = {}
    for member, parts in zip(contents.members, contents.names, strict=True):
        first = seen.setdefault(parts if parts[0] else (member.name,), member.offset)
        if first != member.offset:
            got = f"{member.name} at bytes {first} and {member.offset}"
            path = f"@{member.offset}"
            findings.add("KEY002", "each member name once", got, key=member.name, path=path)


def skipped_names(contents: TarContents, findings: Findings) -> None:
    """KEY005."""
    for member, (key, _) in zip(contents.members, contents.names, strict=True):
        if not key:
            name, path = member.name, f"@{member.offset}"
            findings.add("KEY005", "a name like KEY.EXTENSION", repr(name), key=name, path=path)


def unchecked_names(contents: TarContents, findings: Findings) -> None:
    """KEY007: what nobody looks into should at least be named."""
    for key, extension in contents.names:
        if extension not in _CHECKED_EXTENSIONS and key:
            expected = "an extension of images, txt or json"
            findings.add("KEY007", expected, repr(extension), key=key)


def unsafe_names(contents: TarContents, findings: Findings) -> None:
    """KEY004: harmless to us, who never use names as paths, but not to `tar x`."""
    for member in contents.members:
        name = member.name
        if "/" not in name and "\\" not in name:
            continue
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            path = f"@{member.offset}"
            findings.add("KEY004", "a name inside the archive", repr(name), key=name, path=path)


def our_names(contents: TarContents, findings: Findings, layout: Layout) -> None:
    """KEY001 and KEY006."""
    for key in contents.keys:
        if not _OUR_KEY.fullmatch(key):
            findings.add("KEY001", "characters of 0-9, a-z, _ and -", repr(key), key=key)
    allowed = _OUR_EXTENSIONS[layout]
    for key, extension in contents.names:
        if extension not in allowed:
            expected = f"{' or '.join(sorted(allowed))} in a shard of layout {layout}"
            findings.add("KEY006", expected, repr(extension), key=key)


def check_samples(contents: TarContents, findings: Findings) -> None:
    """PAIR001 to PAIR003, for samples that are not one JSON document each."""
    if all(extension == "json" for _, extension in contents.names):
        return
    runs = runs_of(contents)
    extensions: dict[str, set[str]] = {}
    for key, extension in contents.names:
        if key:
            extensions.setdefault(key, set()).add(extension)
    for key, kinds in extensions.items():
        if len(runs[key]) > 1:
            expected = "the members of a sample next to each other"
            findings.add("PAIR001", expected, f"in {len(runs[key])} places", key=key)
        has_image, has_text = bool(kinds & IMAGE_EXTENSIONS), TEXT_EXTENSION in kinds
        listed = ", ".join(sorted(kinds))
        if has_text and not has_image:
            findings.add("PAIR002", "an image (jpg, png, webp)", f"only {listed}", key=key)
        if has_image and not has_text:
            findings.add("PAIR003", "a text (txt)", f"only {listed}", key=key)
