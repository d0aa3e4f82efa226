"""The documents that a report shows: read by offset, checked, and bounded in every direction.

Each costs one read of its own member, whatever the shard's size, also of a store. Damage is shown
in the place of the document or picture, with the reason: a report on a broken dataset is the one
that is needed most.
"""

import hashlib
import math
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdata.errors import MMDataError
from mmdata.html.markup import shortened
from mmdata.images import ImageRejected
from mmdata.report.picks import Pick, Picks
from mmdata.report.summary import read_rejects
from mmdata.report.tables import ImageRows
from mmdata.report.thumbnails import Thumbnail, thumbnail
from mmdata.report.training import Alignment, verdicts
from mmdata.shards.reader import ShardReader
from mmdata.storage.files import read_range
from mmdata.training_view.selection import SelectionPolicy
from mmdata.validation.documents import Unreadable, parse_document
from mmdata.validation.image_rules import NotBase64, decode_base64
from schemas.document import ShardDocument
from schemas.manifest import Reject

MAX_IMAGES = 12
MAX_SENTENCES = 60
MAX_CHARS = 400  # of a sentence, a name, a URL
_MAX_REJECTS = 12
_BLOCK = 512
#: Caption and JSON of a pair, behind its picture.
_MAX_PAIR_BYTES = 2**20


@dataclass(slots=True, kw_only=True)
class ShownImage:
    """One image of a shown document.

    Attributes:
        number: among the images of the document, from 0.
        problem: why there is no thumbnail; empty where there is one.
        unused: why a training run would not use it; empty where it would.
    """

    number: int
    sentence: int
    similarity: float | None
    margin: float | None
    num_bytes: int
    width: int
    height: int
    format: str
    unused: str
    name: str = ""
    url: str = ""
    text: str = ""
    thumbnail: Thumbnail | None = None
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class ShownDocument:
    """One document of the gallery.

    Attributes:
        sets: `random`, `worst`, `best`: why it was picked.
        sentences: the first of them; `num_sentences` counts all.
        images: the first of them; `num_images` counts all.
        matrix: of the images and sentences that are shown; empty where there is none.
        rejects: what a conversion dropped of it or set right.
        unused: why a training run would not use it; empty where it would.
        problem: why it cannot be shown; empty where it can.
    """

    key: str
    shard: str
    sets: tuple[str, ...]
    source: str
    num_sentences: int
    num_images: int
    similarity: float | None
    unused: str
    images: list[ShownImage]
    url: str = ""
    alignment: str = ""
    similarity_source: str = ""
    sentences: list[str] = field(default_factory=list)
    matrix: list[list[float]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    problem: str = ""

    @property
    def reasons(self) -> list[str]:
        """Everything for which something of it was dropped, or would be in training."""
        found = {reject.reason for reject in self.rejects if reject.action != "kept"}
        found |= {self.unused} | {image.unused for image in self.images}
        return sorted(found - {""})


def show_documents(
    picks: Picks, num_random: int, alignment: dict[str, Alignment], policy: SelectionPolicy
) -> list[ShownDocument]:
    """Read the picked documents.

    Args:
        picks: which.
        num_random: how many of the random ones to show.
        alignment: of each shard.
        policy: of the training run that is forecast.
    """
    sets: dict[tuple[str, str], list[str]] = defaultdict(list)
    chosen: dict[tuple[str, str], Pick] = {}
    for name, of_set in (
        ("random", picks.random[:num_random]),
        ("worst", picks.worst),
        ("best", picks.best),
    ):
        for one in of_set:
            place = one.shard, one.row["key"]
            sets[place].append(name)
            chosen.setdefault(place, one)
    rejects = _rejects_of(chosen.values())
    shown = []
    for place, one in chosen.items():
        document = _describe(one, tuple(sets[place]), alignment[one.shard], policy)
        document.rejects = rejects.get(place, [])
        _read_into(document, one)
        shown.append(document)
    return shown


def texts_of(pick: Pick) -> list[str]:
    """The sentences of a document, all of them.

    Raises:
        MMDataError, OSError, Unreadable: it cannot be read.
    """
    return read_document(pick)[0].text_list


def read_document(pick: Pick) -> tuple[ShardDocument, Sequence[bytes | memoryview | None]]:
    """A document, and its images as base64 (of a pair: as they are).

    Raises:
        MMDataError, OSError: it cannot be read.
        Unreadable: it is not what the samples table says, or no document.
    """
    row = pick.row
    data = read_range(pick.shard, row["offset"], row["size"])
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        problem = ("", "the bytes of the samples table", "others: mmdata validate says more")
        raise Unreadable("SIDE009", problem)
    if data[:1] == b"{":
        parsed = parse_document(data)
        return parsed.document, parsed.payloads
    return _read_pair(pick), [data]


def _read_pair(pick: Pick) -> ShardDocument:
    """The caption of a pair as a document of one sentence; what follows its picture in the tar."""
    start = pick.row["offset"] + -(-pick.row["size"] // _BLOCK) * _BLOCK
    rest = read_range(pick.shard, start, _MAX_PAIR_BYTES)
    place = 0
    while place + _BLOCK <= len(rest):
        try:
            header = tarfile.TarInfo.frombuf(rest[place : place + _BLOCK], "utf-8", "replace")
        except tarfile.HeaderError:
            break
        place += _BLOCK
        if header.name == f"{pick.row['key']}.txt":
            return _caption(rest[place : place + header.size])
        place += -(-header.size // _BLOCK) * _BLOCK
    with ShardReader(pick.shard) as reader:  # others put it anywhere
        text = reader.read(pick.row["key"]).members.get("txt")
        if text is not None:
            return _caption(text)
    raise Unreadable("PAIR003", ("", "a caption behind the picture", "none"))


def _caption(text: bytes | memoryview) -> ShardDocument:
    caption = str(text, "utf-8", "replace")
    return ShardDocument(text_list=[caption], image_info=[], alignment="given")


def _describe(
    one: Pick, sets: tuple[str, ...], alignment: Alignment, policy: SelectionPolicy
) -> ShownDocument:
    """What the samples table alone knows."""
    row = one.row
    num_images = len(row["matched"])
    known = [value for value in row["similarity"] if value is not None]
    rows = ImageRows(
        offsets=[0, num_images],
        sentences=[row["sentences"]],
        image_bytes=row["image_bytes"],
        matched=row["matched"],
        similarity=[math.nan if value is None else value for value in row["similarity"]],
    )
    reason, drops = verdicts(rows, 0, alignment, policy)
    images = [_image(row, number, drops) for number in range(min(num_images, MAX_IMAGES))]
    member = f" > {row['source_member']}" if row["source_member"] else ""
    return ShownDocument(
        key=row["key"],
        shard=one.shard,
        sets=sets,
        source=f"{row['source_file']}{member}, record {row['source_record']}",
        num_sentences=row["sentences"],
        num_images=num_images,
        similarity=sum(known) / len(known) if known else None,
        unused=str(reason or ""),
        images=images,
        alignment=alignment.kind,
    )


def _image(row: dict[str, Any], number: int, drops: dict[int, str]) -> ShownImage:
    return ShownImage(
        number=number,
        sentence=row["matched"][number],
        similarity=row["similarity"][number],
        margin=row["margin"][number],
        num_bytes=row["image_bytes"][number],
        width=row["width"][number],
        height=row["height"][number],
        format=row["format"][number],
        unused=drops.get(number, ""),
    )


def _read_into(document: ShownDocument, one: Pick) -> None:
    """Add what only the shard knows: texts, names, the matrix, pictures."""
    try:
        found, payloads = read_document(one)
    except Unreadable as error:
        _, expected, got = error.problem
        document.problem = f"{error.code}: expected {expected}, got {got}"
        return
    except (MMDataError, OSError) as error:
        document.problem = str(error)
        return
    document.sentences = [shortened(text, MAX_CHARS) for text in found.text_list[:MAX_SENTENCES]]
    document.url = _text(found.url)
    document.alignment = _text(found.alignment) or document.alignment
    document.similarity_source = _text(found.similarity_source)
    if isinstance(found.similarity_matrix, list):
        rows = found.similarity_matrix[:MAX_IMAGES]
        document.matrix = [row[:MAX_SENTENCES] for row in rows]
    for image in document.images:
        if image.number < len(found.image_info):
            info = found.image_info[image.number]
            image.name, image.url = _text(info.image_name), _text(info.raw_url)
        if 0 <= image.sentence < len(found.text_list):
            image.text = shortened(found.text_list[image.sentence], MAX_CHARS)
        payload = payloads[image.number] if image.number < len(payloads) else None
        _draw(image, payload, is_base64=bool(found.image_info))


def _draw(image: ShownImage, payload: bytes | memoryview | None, *, is_base64: bool) -> None:
    """The thumbnail, or why there is none."""
    if payload is None:
        image.problem = "no bytes in the document"
        return
    try:
        image.thumbnail = thumbnail(decode_base64(payload) if is_base64 else bytes(payload))
    except NotBase64 as error:
        image.problem = f"{error.code}: {error.got}"
    except ImageRejected as error:
        image.problem = str(error)


def _text(value: object) -> str:
    return shortened(value, MAX_CHARS) if isinstance(value, str) else ""


def _rejects_of(picks: Iterable[Pick]) -> dict[tuple[str, str], list[Reject]]:
    """What was dropped of the picked documents."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for one in picks:
        wanted[one.shard].add(one.row["key"])
    found: dict[tuple[str, str], list[Reject]] = defaultdict(list)
    for shard, keys in wanted.items():
        for reject in read_rejects(shard):
            if reject.key in keys and len(found[shard, reject.key]) < _MAX_REJECTS:
                found[shard, reject.key].append(reject)
    return found
