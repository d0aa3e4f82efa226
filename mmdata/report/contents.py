"""What a report is made from, gathered before the first line of HTML is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from mmdata.errors import UserError
from mmdata.report.gallery import ShownDocument
from mmdata.report.summary import Summary
from mmdata.report.tokens import TokenCount
from mmdata.report.training import Alignment
from mmdata.shards.naming import MANIFEST_NAME
from mmdata.storage.files import read_bytes
from mmdata.training_view.selection import SelectionPolicy
from schemas.manifest import ExcludedInput, ManifestInput
from schemas.validation import Finding, RuleCount


class FindingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `mmdata validate --json` writes, as far as it is shown here."""

    level: str
    shards: int
    counts: list[RuleCount]
    findings: list[Finding]


class ManifestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a manifest; the shards in it are the validator's."""

    format_version: str
    kind: str
    layout: str
    options: dict[str, object]
    versions: dict[str, str]
    fingerprint: str
    inputs: list[ManifestInput]
    excluded_inputs: list[ExcludedInput]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of shards; `manifest` is None where there is none that can be read."""

    path: str
    shards: int
    alignment: Alignment
    manifest: ManifestFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that stands in a report.

    Attributes:
        title: of the page.
        num_shards: that were asked for; `summary.shards` were read.
        findings: None where they were not asked for.
        num_random: documents in the random sample that were asked for.
        tokens: None without a tokenizer.
        meanings: what reasons mean, in words.
    """

    title: str
    folders: list[Folder]
    num_shards: int
    summary: Summary
    policy: SelectionPolicy
    documents: list[ShownDocument]
    num_random: int
    seed: int
    findings: FindingsReport | None = None
    tokens: TokenCount | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)


def read_findings(path: str) -> FindingsReport:
    """The report that `mmdata validate --json FILE` wrote.

    Raises:
        UserError: there is none, or it is something else.
    """
    try:
        return msgspec.json.decode(read_bytes(path), type=FindingsReport)
    except OSError as error:
        raise UserError(f"--findings {path}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise UserError(
            f"--findings {path}: not a report of mmdata validate --json: {error}"
        ) from error


def read_manifest(folder: str) -> ManifestFacts | None:
    """The manifest of a folder; None without one (the validator says what is wrong with it)."""
    try:
        raw = read_bytes(f"{folder.rstrip('/')}/{MANIFEST_NAME}")
        return msgspec.json.decode(raw, type=ManifestFacts)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
