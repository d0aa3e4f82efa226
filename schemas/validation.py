"""The report of `mmdata validate`: what `--json`, `--format json` and the Python API hand out.

Fields are added, never changed in meaning: then `schema_version` would move.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.document import Count
from schemas.forecast import Forecast, PeerForecast

SCHEMA_VERSION = "1"

Severity = Literal["error", "warning"]
Level = Literal["structure", "content", "full"]


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        shard: path of the tar, or of the file beside it.
        key: sample key, or member name where there is no key; empty for the whole shard.
        path: where in the document (`$.image_info[0].sha256`), or `@1536` for a byte offset.
        code: of the rule (`rules.RULES`).
        expected: what should be there.
        got: what is.
    """

    shard: Annotated[str, Meta(description="path of the tar, or of the file beside it")]
    key: Annotated[str, Meta(description="sample key or member name; empty for the whole shard")]
    path: Annotated[str, Meta(description="where in the document, or @ and a byte offset")]
    code: Annotated[str, Meta(description="of the rule, see docs/rules.md")]
    expected: str
    got: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.shard, self.key) if part)
        at = f" - at `{self.path}`" if self.path else ""
        return f"{self.code} expected {self.expected}, got {self.got}{at} ({where})"


class RuleCount(Struct, frozen=True, kw_only=True):
    """How often one rule was broken, and in how many shards (or other files)."""

    code: str
    severity: Severity
    findings: Count
    shards: Count
    meaning: str
    remedy: str


class AcrossReport(Struct, frozen=True, kw_only=True):
    """What was seen across shards with `--across` or `--against`."""

    documents: Annotated[int, Meta(ge=0, description="compared")]
    images: Annotated[int, Meta(ge=0, description="compared")]
    repeated_documents: Annotated[int, Meta(ge=0, description="equal to one before them")]
    repeated_images: Annotated[int, Meta(ge=0, description="equal to one before them")]
    leaked_documents: Annotated[int, Meta(ge=0, description="that the other dataset has too")]
    leaked_images: Annotated[int, Meta(ge=0, description="that the other dataset has too")]
    mean_similarity: Annotated[float | None, Meta(description="of all images; None without any")]
    lowest_mean: Annotated[float | None, Meta(description="of a shard")]
    highest_mean: Annotated[float | None, Meta(description="of a shard")]
    groups: Annotated[int, Meta(ge=0, description="that the samples tables tell")] = 0
    leaked_groups: Annotated[int, Meta(ge=0, description="that the other dataset has too")] = 0


class ValidationReport(Struct, frozen=True, kw_only=True):
    """What a validation found.

    Attributes:
        level: how far it looked.
        shards: number of tars.
        samples: distinct keys in each, together.
        images: images with bytes, of the shards whose images were counted.
        uncounted: shards whose images were not: at level structure those of documents are counted
            by the sidecar alone.
        bytes: of the tars.
        errors: findings that fail the run.
        warnings: findings that do not, unless asked to.
        exit_code: 0 where nothing fails the run, else 1.
        counts: rules that were broken, errors first; all findings are counted.
        findings: at most `max_findings` of each rule, in the order of the shards.
        across: None unless asked for; so are `forecast` and `peer`.
    """

    schema_version: str = SCHEMA_VERSION
    level: Level
    shards: Count
    samples: Count
    images: Count
    uncounted: Annotated[int, Meta(ge=0, description="shards whose images were not counted")] = 0
    bytes: Count
    errors: Count
    warnings: Count
    exit_code: Annotated[int, Meta(ge=0, le=1)]
    counts: list[RuleCount]
    findings: list[Finding]
    across: AcrossReport | None = None
    forecast: Forecast | None = None
    peer: PeerForecast | None = None

    def to_json(self) -> str:
        """The whole report as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas (2020-12) by file stem."""
    return {"validation": msgspec.json.schema(ValidationReport)}
