"""Everything that one shard can be asked: what a worker does with one path.

Structure first, then what stands beside the shard, then (levels content and full) its members one
at a time, so that memory is that of the largest member. The result is small and says all that the
rules across shards need to know, so that no shard is opened twice.
"""

import hashlib
from dataclasses import dataclass, field

import msgspec

from mmdata.errors import BadInputError
from mmdata.images import ImageRejected, verify_image
from mmdata.shards.reader import read_samples_table, samples_path
from mmdata.shards.tar import BLOCK_BYTES, END_MARK
from mmdata.storage.files import exists, local_file, mapped, read_bytes, size_of
from mmdata.storage.ranges import RangeBuffer, Slices
from mmdata.storage.urls import is_url
from mmdata.validation import sidecar_rules
from mmdata.validation.documents import Unreadable, check_json, decode_json, parse_document
from mmdata.validation.findings import Findings
from mmdata.validation.image_rules import SHARD_POLICY, PictureCounts, check_images
from mmdata.validation.outcome_rules import outcomes_fit
from mmdata.validation.rules import check_document
from mmdata.validation.samples_rules import row_fits_document
from mmdata.validation.sidecar_rules import Beside, Table
from mmdata.validation.tar_rules import (
    IMAGE_EXTENSIONS,
    TEXT_EXTENSION,
    TarContents,
    check_structure,
    pictures_by_name,
)
from schemas.manifest import SAMPLES_COLUMNS, Sidecar
from schemas.validation import Finding, Level

_ANY_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to check.

    Attributes:
        path: of the tar.
        level: how far to look.
        max_findings: findings to keep of each rule.
        owed: the folder is ours, so that a sidecar is owed.
        checksum: compare the sha256 of the tar at level structure too.
    """

    path: str
    level: Level
    max_findings: int
    owed: bool
    checksum: bool = False


@dataclass(slots=True, kw_only=True)
class ShardResult:
    """What came of one shard.

    Attributes:
        path: of the tar.
        num_bytes: size of the tar; 0 where it could not be read.
        num_samples: distinct keys.
        num_images: with bytes; at level structure what the sidecar says, or of pairs the names;
            None where neither does.
        sha256: of the tar; None at level structure without `checksum`.
        first_key: the least key (in the order of strings), empty without samples.
        last_key: the greatest.
        sidecar: None without a usable one.
        sidecar_sha256: None without one.
        counts: findings by rule.
        findings: those that were kept.
    """

    path: str
    num_bytes: int = 0
    num_samples: int = 0
    num_images: int | None = 0
    sha256: str | None = None
    first_key: str = ""
    last_key: str = ""
    sidecar: Sidecar | None = None
    sidecar_sha256: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def check_shard(task: ShardTask) -> ShardResult:
    """Apply every rule of one shard, up to the level of the task."""
    findings = Findings(task.path, task.max_findings)
    result = ShardResult(path=task.path, counts=findings.counts, findings=findings.kept)
    try:
        headers = _headers_alone(task)
        if headers is not None:
            _Check(task, findings, result).run(headers)
            return result
        with local_file(task.path) as file:
            if task.level != "structure" or task.checksum:
                # By plain reads: a disk that fails shows here or nowhere, for the pages of a file
                # that is mapped answer with SIGBUS, which ends the process.
                result.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            with mapped(file) as data:
                _Check(task, findings, result).run(data)
    except OSError as error:
        findings.add("TAR012", "a file that can be read", str(error))
    return result


def _headers_alone(task: ShardTask) -> RangeBuffer | None:
    """The headers and padding of a tar in a store, where the samples table says where they are.

    None where the whole tar is read in any case, or nothing says where its headers are: asking for
    one header after the other takes longer than to copy all.
    """
    table = samples_path(task.path)
    if task.level != "structure" or task.checksum or not is_url(task.path) or not exists(table):
        return None
    try:
        places = read_samples_table(table, ["offset", "size"])
    except BadInputError:
        return None  # SIDE006 says so
    ends = [offset + size for offset, size in zip(*places.values(), strict=True)]
    longest = 2 * BLOCK_BYTES  # padding and the next header, or padding and the end mark
    spans = [(0, BLOCK_BYTES), *((end, end + longest) for end in ends)]
    size = size_of(task.path)
    return RangeBuffer(task.path, size, [*spans, (size - len(END_MARK), size)])


class _Check:
    """One shard under examination."""

    def __init__(self, task: ShardTask, findings: Findings, result: ShardResult) -> None:
        self.task = task
        self.findings = findings
        self.result = result
        self.beside = Beside.of(task.path)
        self.table: Table | None = None
        self.rows: dict[str, int] = {}
        self.pictures = PictureCounts()
        self.num_images = 0

    def run(self, data: Slices) -> None:
        result, findings = self.result, self.findings
        sidecar = sidecar_rules.read_sidecar(self.beside, findings, owed=self.task.owed)
        ours = sidecar is not None and not sidecar.indexed
        contents = check_structure(data, findings, sidecar.layout if sidecar and ours else None)
        result.num_bytes = len(data)
        result.num_samples = len(contents.keys)
        result.first_key = min(contents.keys, default="")
        result.last_key = max(contents.keys, default="")
        if sidecar is not None:
            result.sidecar = sidecar
            result.sidecar_sha256 = hashlib.sha256(read_bytes(self.beside.sidecar)).hexdigest()
            self.check_beside(sidecar, data, contents)
        if sidecar is not None and result.sha256 is not None:
            sidecar_rules.hash_fits(sidecar, result.sha256, findings)
        if self.task.level == "structure":
            result.num_images = sidecar.tally.images if sidecar else pictures_by_name(contents)
        else:
            self.check_members(data, contents)
            result.num_images = self.num_images
            if problem := self.pictures.one_for_most():
                findings.add("IMG005", *problem)

    def check_beside(self, sidecar: Sidecar, data: Slices, contents: TarContents) -> None:
        """Sidecar, samples table and rejects against the tar and each other."""
        findings = self.findings
        sidecar_rules.names_this_shard(sidecar, self.task.path, findings)
        sidecar_rules.size_fits(sidecar, data, findings)
        structure = self.task.level == "structure"
        columns = sidecar_rules.STRUCTURE_COLUMNS if structure else tuple(SAMPLES_COLUMNS)
        samples = sidecar_rules.read_samples(sidecar, self.beside, columns, findings)
        if samples is not None:
            self.table = samples.columns
            sidecar_rules.rows_fit_members(sidecar, self.table, contents, findings)
            self.rows = {key: row for row, key in enumerate(self.table["key"])}
        sidecar_rules.check_rejects(sidecar, self.beside, findings)
        outcomes_fit(sidecar, self.task.path, self.table, findings)
        sidecar_rules.check_tally(sidecar, samples, contents, findings)

    def check_members(self, data: Slices, contents: TarContents) -> None:
        """The data of every member that belongs to a sample."""
        paired = {
            key
            for key, extension in contents.names
            if extension in IMAGE_EXTENSIONS or extension == TEXT_EXTENSION
        }
        for member, (key, extension) in zip(contents.members, contents.names, strict=True):
            if not key:
                continue
            raw = data[member.offset : member.offset + member.size]
            if extension == "json" and key not in paired:
                self.check_member_hash(key, raw)
                self.check_document(key, raw)
            elif extension == "json":
                self.check_metadata(key, raw)
            elif extension == TEXT_EXTENSION:
                self.check_text(key, raw)
            elif extension in IMAGE_EXTENSIONS:
                self.check_image_member(key, member.name, raw)

    def check_member_hash(self, key: str, raw: bytes) -> None:
        """SIDE009. Where the tar's own hash fits, only level full asks the members as well."""
        sidecar, row = self.result.sidecar, self.rows.get(key)
        if sidecar is None or self.table is None or row is None:
            return
        if self.task.level != "full" and sidecar.sha256 == self.result.sha256:
            return
        digest, listed = hashlib.sha256(raw).hexdigest(), self.table["sha256"][row]
        if digest != listed:
            path = f"samples[{row}].sha256"
            self.findings.add("SIDE009", repr(listed), digest, key=key, path=path)

    def check_document(self, key: str, raw: bytes) -> None:
        """One interleaved document, its images, and its row of the samples table."""
        try:
            parsed = parse_document(raw)
        except Unreadable as error:
            path, expected, got = error.problem
            self.findings.add(error.code, expected, got, key=key, path=path)
            return
        sidecar = self.result.sidecar
        indexed = sidecar is not None and sidecar.indexed
        if sidecar is not None and not parsed.ours and not indexed:
            self.findings.add("DOC001", "format_version, as in all of ours", "none", key=key)
        sound = True
        for rule, (path, expected, got) in check_document(parsed):
            sound = sound and rule.breaks == "nothing"
            self.findings.add(rule.code, expected, got, key=key, path=path)
        images: list[bytes | None] = []
        decode = self.task.level == "full"
        for code, (path, expected, got) in check_images(parsed, images, decode=decode):
            self.findings.add(code, expected, got, key=key, path=path)
        self.num_images += sum(payload is not None for payload in parsed.payloads)
        self.pictures.add(parsed, images)
        row = self.rows.get(key)
        if sound and self.table is not None and row is not None and not indexed:
            for path, expected, got in row_fits_document(self.table, row, parsed, images):
                self.findings.add("SIDE013", expected, got, key=key, path=path)

    def check_metadata(self, key: str, raw: bytes) -> None:
        """The JSON of a pair: readable, an object, without ambiguity."""
        try:
            decode_json(_ANY_OBJECT, raw)
            for code, (path, expected, got) in check_json(raw):
                self.findings.add(code, expected, got, key=key, path=path)
        except Unreadable as error:
            path, expected, got = error.problem
            self.findings.add(error.code, expected, got, key=key, path=path)

    def check_text(self, key: str, raw: bytes) -> None:
        """PAIR004, and the text's hash where the samples table has one."""
        try:
            str(raw, "utf-8")
        except UnicodeDecodeError as error:
            got = f"byte 0x{raw[error.start]:02x} at {error.start}"
            self.findings.add("PAIR004", "UTF-8", got, key=key)
        self.compare(key, "SIDE013", "text_sha256", hashlib.sha256(raw + b"\n").hexdigest())

    def check_image_member(self, key: str, name: str, raw: bytes) -> None:
        """The picture of a pair: its hash, then its pixels."""
        self.num_images += 1
        self.compare(key, "IMG001", "image_sha256", [hashlib.sha256(raw).hexdigest()])
        if self.task.level != "full":
            return
        try:
            facts = verify_image(raw, SHARD_POLICY)
        except ImageRejected as error:
            got = f"{error.reason}: {error.detail}"
            self.findings.add("IMG002", "an image that decodes completely", got, key=name)
            return
        for column in ("width", "height", "format"):
            self.compare(key, "IMG003", column, [getattr(facts, column)])

    def compare(self, key: str, code: str, column: str, found: object) -> None:
        """A value of the samples table against what the members of a pair show."""
        row = self.rows.get(key)
        if self.table is None or row is None:
            return
        listed = self.table[column][row]
        if listed != found:
            path = f"samples[{row}].{column}"
            self.findings.add(code, f"{found!r}, as in the tar", repr(listed), key=key, path=path)
