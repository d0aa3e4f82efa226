"""What stands beside the shards: sidecar, rejects, samples table, manifest.

A shard exists when its sidecar does and names its size. The manifest is written last, so that its
presence means that the conversion is complete. None of these holds a time or a host: the same
input and options give the same bytes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.document import FORMAT_VERSION, Count, Sha256

Kind = Literal["mmc4", "laion", "custom"]
Layout = Literal["interleaved", "pairs"]


class KindFacts(NamedTuple):
    """What is the same in all shards of a kind of conversion.

    Attributes:
        rule: by which training reads a sample: a document, or one image and its text.
        one_alignment: all documents of a shard agree in `alignment`.
    """

    rule: Literal["interleaved", "caption"]
    one_alignment: bool


KINDS: dict[str, KindFacts] = {
    "mmc4": KindFacts("interleaved", one_alignment=True),
    "laion": KindFacts("caption", one_alignment=True),
    "custom": KindFacts("interleaved", one_alignment=False),
}

RejectAction = Literal["dropped-document", "dropped-image", "kept"]


class SourceSpan(Struct, kw_only=True, frozen=True):
    """A run of records of one input file."""

    file: Annotated[str, Meta(description="relative to the inputs' common folder")]
    member: Annotated[str, Meta(description="member of an archive; empty for a plain file")] = ""
    first_record: Annotated[int, Meta(ge=0, description="of the file (or member), from 0")]
    num_records: Count


class Tally(Struct, kw_only=True):
    """What came in, what went out, and by which reason the rest was dropped.

    records = documents + sum(documents_dropped), images_listed = images + sum(images_dropped).
    With --split, records that belong to another split are counted apart and in nothing else.
    """

    records: Count = 0
    documents: Count = 0
    images_listed: Count = 0
    images: Count = 0
    sentences: Count = 0
    image_bytes: Annotated[int, Meta(ge=0, description="of the encoded files, before base64")] = 0
    images_reencoded: Count = 0
    documents_dropped: dict[str, int] = {}
    images_dropped: dict[str, int] = {}
    notes: dict[str, int] = {}
    other_splits: Annotated[int, Meta(ge=0, description="records of the other splits")] = 0

    def add(self, other: "Tally") -> None:
        """Add another's counts to these; reasons come in the order of their names."""
        for name in self.__struct_fields__:
            mine, more = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                setattr(self, name, dict(sorted((Counter(mine) + Counter(more)).items())))
            else:
                setattr(self, name, mine + more)


class Sidecar(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """`000000000.json`, committed after everything else of its shard."""

    format_version: str
    kind: Kind
    layout: Layout
    shard: Annotated[str, Meta(description="file name of the tar")]
    bytes: Annotated[int, Meta(ge=0, description="size of the tar")]
    sha256: Sha256
    samples_bytes: Count
    samples_sha256: Sha256
    rejects_bytes: Count
    rejects_sha256: Sha256
    first_ordinal: Annotated[int, Meta(ge=0, description="of the first record, in all inputs")]
    source: list[SourceSpan]
    tally: Tally
    fingerprint: Annotated[str, Meta(description="of inputs, options and versions")]
    indexed: Annotated[
        bool, Meta(description="the tar was made by others, and only what is beside it by us")
    ] = False


class Reject(Struct, kw_only=True, omit_defaults=True):
    """One line of `000000000.rejects.jsonl`."""

    action: RejectAction
    reason: str
    file: str
    member: str = ""
    record: Annotated[int, Meta(ge=0, description="of the file (or member), from 0")]
    key: str
    image: str = ""
    detail: str = ""


class ManifestShard(Struct, kw_only=True, frozen=True):
    """A row of the manifest."""

    shard: str
    samples: Count
    bytes: Count
    sha256: Sha256
    sidecar: str
    sidecar_sha256: Sha256


class ManifestInput(Struct, kw_only=True, frozen=True):
    """An input as it was read."""

    file: str
    bytes: Count
    records: Count
    crc32: str


class ExcludedInput(Struct, kw_only=True, frozen=True):
    """An input that was left out with --skip-bad-inputs."""

    file: str
    problem: str


class Groups(Struct, kw_only=True, frozen=True):
    """What keeps documents together, as the samples tables tell it, and how many there are."""

    by: Annotated[str, Meta(description="field of the source, or url-host")]
    key: Annotated[str, Meta(description="tells keys of hashes apart; `public`: no secret one")]
    groups: Annotated[int, Meta(ge=0, description="different ones in all shards")]
    documents_without: Annotated[int, Meta(ge=0, description="each a group of its own")]


class Manifest(Struct, kw_only=True, frozen=True):
    """`manifest.json`, written last: its presence means that the dataset is complete."""

    format_version: str
    kind: Kind
    layout: Layout
    totals: Tally
    options: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    inputs: list[ManifestInput]
    excluded_inputs: list[ExcludedInput]
    shards: list[ManifestShard]
    groups: Annotated[
        Groups | UnsetType, Meta(description="with --split or --split-by; else absent")
    ] = UNSET


def manifest_fingerprint(
    kind: str,
    inputs: Iterable[tuple[str, int, int, str]],
    options: dict[str, Any],
    versions: dict[str, str],
) -> str:
    """A hash of all that decides the shards' bytes; no mount paths, no number of workers.

    Args:
        kind: of the conversion.
        inputs: (file, bytes, records, crc32) of each, as the manifest lists them.
        options: that change bytes.
        versions: of formats and codecs.
    """
    facts = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "inputs": [list(entry) for entry in inputs],
        "options": options,
        "versions": versions,
    }
    return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()


#: Columns of `000000000.samples.parquet`: name -> (type, meaning). Lists have one entry an image.
SAMPLES_COLUMNS: dict[str, tuple[str, str]] = {
    "key": ("string", "sample key, the member's name without its extension"),
    "offset": ("int64", "byte offset of the member's data in the tar (not of its header)"),
    "size": ("int64", "bytes of the member's data"),
    "sha256": ("string", "of the member's data"),
    "source_file": ("string", "input file, relative to the inputs' common folder"),
    "source_member": ("string", "member of an archive, else empty"),
    "source_record": ("int64", "record of that file or member, from 0"),
    "sentences": ("int32", "number of sentences"),
    "text_bytes": ("int64", "UTF-8 bytes of all sentences"),
    "text_sha256": ("string", "of the sentences, each followed by a line feed"),
    "matched": ("list<int32>", "matched_text_index"),
    "similarity": ("list<double>", "matched_sim"),
    "margin": ("list<double>", "matched_sim minus the image's best other sentence; null if none"),
    "image_bytes": ("list<int64>", "bytes of the encoded file"),
    "width": ("list<int32>", "pixels"),
    "height": ("list<int32>", "pixels"),
    "format": ("list<string>", "jpeg, png or webp"),
    "image_sha256": ("list<string>", "of the encoded file"),
    "reencoded": ("list<bool>", "false: the source's bytes, unchanged"),
}


#: Further columns, of conversions that were told to keep documents together: as above.
GROUP_COLUMNS: dict[str, tuple[str, str]] = {
    "group": ("string", "keyed hash of what the document stays together with; empty without one"),
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas (2020-12) of the records beside a shard, by file stem."""
    records = {"sidecar": Sidecar, "manifest": Manifest, "reject": Reject}
    return {name: msgspec.json.schema(record) for name, record in records.items()}
