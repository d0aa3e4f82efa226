"""Read a document as strictly as JSON allows, without walking its pictures twice.

The pictures are cut out first (`mmdata.shards.pictures_in_json`), which leaves a few kilobytes that
can be decoded, searched for duplicate keys and checked as UTF-8 at leisure: twice as fast as one
typed decode of the whole, which would not see duplicate keys.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from mmdata.shards.pictures_in_json import cut_pictures
from mmdata.sources.strict_json import BadNumberError, check_integer, check_real
from schemas.document import FORMAT_VERSION, Document, ShardDocument, is_ours

#: (path, expected, got) of one thing that is wrong.
Problem = tuple[str, str, str]
Record = TypeVar("Record")

_AT = re.compile(r" - at `(.+)`$")
_EXPECTED = re.compile(r"^Expected (.+), got (.+)$", re.DOTALL)
_TOO_DEEP = ("$", "nesting that a reader can follow", "nesting that overruns the stack")

_SHARD_DECODER = msgspec.json.Decoder(ShardDocument)
_OUR_DECODER = msgspec.json.Decoder(Document)


class Unreadable(Exception):
    """A member that is not a document: `code` of the rule, and the problem."""

    def __init__(self, code: str, problem: Problem) -> None:
        super().__init__(code, problem)
        self.code = code
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document whose base64 stands apart.

    Attributes:
        document: its `image_base64` fields hold marks where there were strings.
        payloads: the base64 of each image, None where it has none.
        ours: whether it claims our format.
    """

    document: ShardDocument
    payloads: list[memoryview | None]
    ours: bool


def parse_document(raw: bytes) -> Parsed:
    """Read one `{key}.json` member.

    Raises:
        Unreadable: it breaks a JSON rule, or has not the fields of a document.
    """
    cut = cut_pictures(raw)
    rest = cut.rest
    not_utf8 = invalid_utf8(rest)
    if not_utf8:
        raise Unreadable("JSON001", not_utf8)
    document = decode_json(_SHARD_DECODER, rest)
    for code, problem in check_json(rest):
        raise Unreadable(code, problem)
    ours = is_ours(document)
    if ours and document.format_version == FORMAT_VERSION:
        decode_json(_OUR_DECODER, rest)
    texts = [image.image_base64 for image in document.image_info]
    payloads = [cut.picture(text) if isinstance(text, str) else None for text in texts]
    return Parsed(document, payloads, ours)


def check_json(raw: bytes) -> Iterator[tuple[str, Problem]]:
    """The rules that any JSON member must keep, beyond being decodable: (code, problem)."""
    for rule in (_not_told_apart, lone_surrogate):
        problem = rule(raw)
        if problem:
            yield problem


def decode_json(decoder: "msgspec.json.Decoder[Record]", raw: bytes) -> Record:
    """Decode a JSON member.

    Raises:
        Unreadable: with the rule that is broken in place of msgspec's error.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        problem = schema_problem(error)
        raise Unreadable(_schema_code(problem), problem) from None
    except RecursionError:
        raise Unreadable("JSON005", _TOO_DEEP) from None
    except UnicodeDecodeError as error:
        raise Unreadable("JSON001", ("$", "UTF-8", str(error))) from None
    except msgspec.DecodeError as error:
        code, problem = _malformed(raw, str(error))
        raise Unreadable(code, problem) from None


def schema_problem(error: msgspec.ValidationError) -> Problem:
    """msgspec's "Expected `int`, got `str` - at `$.a`" in its parts."""
    text = str(error)
    at = _AT.search(text)
    path = at[1] if at else "$"
    text = text[: at.start()] if at else text
    parts = _EXPECTED.match(text)
    if parts:
        return path, parts[1], parts[2]
    return path, "what the schema asks for", text


def _schema_code(problem: Problem) -> str:
    """Which rule a problem of the schema breaks."""
    path, expected, got = problem
    if path == "$" and expected == "`object`":
        return "JSON006"
    if path.startswith("$.similarity_matrix[") and got == "Number out of range":
        return "SIM003"
    return "DOC001"


def _malformed(raw: bytes, message: str) -> tuple[str, Problem]:
    """Why JSON is none: Python's json knows NaN, half surrogates and says where."""
    try:
        _loads(raw)
    except ValueError as error:
        return "JSON002", ("$", "JSON", f"{error}; member of {len(raw)} bytes")
    surrogate = lone_surrogate(raw)
    if surrogate:
        return surrogate
    for constant in (b"NaN", b"Infinity"):
        if constant in raw:
            return "JSON002", ("$", "JSON", f"{constant.decode()}, which JSON does not have")
    return "JSON002", ("$", "JSON", message)


def invalid_utf8(raw: bytes) -> Problem | None:
    """JSON001: what is not UTF-8, also where a decoder would have skipped it."""
    try:
        str(raw, "utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        return "$", "UTF-8", f"byte 0x{byte:02x} at {error.start} ({error.reason})"
    return None


def lone_surrogate(raw: bytes) -> tuple[str, Problem] | None:
    """JSON004: an escape like \\ud83d without its other half, anywhere."""
    if b"\\u" not in raw:
        return None
    text = json.dumps(_loads(raw), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x} alone"
        return "JSON004", ("$", "surrogates in pairs", half)
    return None


class _DuplicateKey(ValueError):
    pass


def _not_told_apart(raw: bytes) -> tuple[str, Problem] | None:
    """JSON003: a key that an object has twice; readers keep the last and say nothing.

    JSON007: a number that readers refuse, or take for infinity. One pass for both.
    """
    try:
        _TOLD_APART.decode(raw.decode("utf-8", "surrogatepass"))
    except RecursionError:
        raise Unreadable("JSON005", _TOO_DEEP) from None
    except _DuplicateKey as error:
        return "JSON003", ("$", "each key once", f"{error.args[0]!r} twice")
    except BadNumberError as error:
        return "JSON007", ("$", "a number that readers can hold", str(error))
    return None


def _loads(raw: bytes) -> object:
    """Python's json, for which integers of any length are no matter."""
    try:
        return json.loads(raw, parse_int=str)
    except RecursionError:
        raise Unreadable("JSON005", _TOO_DEEP) from None


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return unique


#: Made once: making one takes a tenth of the time that a document takes.
_TOLD_APART = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_int=check_integer, parse_float=check_real
)
