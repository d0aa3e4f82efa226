"""Every rule of the validator: its code, how grave it is, what it means and what to do.

The one table that findings, reports and the documentation take their words from, and by which a
document is asked. Codes never change meaning: new ones are added, old ones stay. An error makes the
exit code 1, a warning does not: it is for what a reader may stumble over and what other tools'
shards leave out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from mmdata.validation import document_rules as ask
from mmdata.validation.documents import Parsed, Problem
from schemas.validation import Level, Severity

Breaks = Literal["nothing", "document", "shape"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        code: stable name of the rule.
        severity: whether a finding fails the run.
        level: the lowest level of validation that applies it.
        meaning: what a finding says, in one line.
        remedy: what to do about it.
        check: of a rule about documents: yields what is wrong with one.
        check_matrix: yields what is wrong with a document's matrix of similarities; it is asked
            only where the shape of the document is sound.
        breaks: what is broken of a document about which such a rule finds something: `nothing`;
            the `document`, so that it is not compared with its row of the samples table; or even
            its `shape`, so that no rule can ask about its matrix.
    """

    code: str
    severity: Severity
    level: Level
    meaning: str
    remedy: str
    check: Callable[[Parsed], Iterator[Problem]] | None = None
    check_matrix: Callable[[Parsed, ask.Matrix], Iterator[Problem]] | None = None
    breaks: Breaks = "document"


_CONVERT_AGAIN = "convert the shard again"
_COPY_AGAIN = "copy the shard again, or convert it again"
_MIXED = "files of two runs were mixed: copy the folder again"
_SPLIT_AGAIN = "convert both with one --split-by and --pseudonym-key"
_SOURCE = "correct or drop the record in the source"

_E: Severity = "error"
_W: Severity = "warning"
_S: Level = "structure"
_C: Level = "content"
_F: Level = "full"

# fmt: off
_ROWS: tuple[Rule, ...] = (
    Rule("TAR001", _E, _S, "the file is not a tar", "unpack it, or leave it out"),
    Rule("TAR002", _E, _S, "the file is empty", _COPY_AGAIN),
    Rule("TAR003", _E, _S, "a header is not what its own fields make of it", _COPY_AGAIN),
    Rule("TAR004", _E, _S, "the file ends inside a member", _COPY_AGAIN),
    Rule("TAR005", _E, _S, "the padding behind a member is not zero", _COPY_AGAIN),
    Rule("TAR006", _E, _S, "the end mark is missing or incomplete", _COPY_AGAIN),
    Rule("TAR007", _E, _S, "there are bytes behind the end mark", _COPY_AGAIN),
    Rule("TAR008", _E, _S, "samples lie behind damage, where readers stop silently", _COPY_AGAIN),
    Rule("TAR009", _W, _S, "a member is not a regular file; readers skip it", "leave it out"),
    Rule("TAR010", _E, _S, "a header of our shard is in another tar dialect", _CONVERT_AGAIN),
    Rule("TAR011", _E, _S, "an extended (pax) header does not add up", _COPY_AGAIN),
    Rule("TAR012", _E, _S, "the shard or its check failed while it was read", "see the message"),
    Rule("KEY001", _E, _S, "a key of our shard has other characters than 0-9 a-z _ -", _MIXED),
    Rule("KEY002", _E, _S, "a member name is there twice; webdataset raises", _CONVERT_AGAIN),
    Rule("KEY003", _E, _S, "a key is in two shards of one dataset", _MIXED),
    Rule("KEY004", _E, _S, "a member name is absolute or leads out of a folder", "rename it"),
    Rule("KEY005", _W, _S, "a member has no key or no extension; readers skip it", "leave it out"),
    Rule("KEY006", _E, _S, "a member of our shard has an extension that is not ours", _MIXED),
    Rule("KEY007", _W, _S, "a member has an extension that is not checked here", "none"),
    Rule("SIDE001", _E, _S, "a shard has no sidecar, though it should", "run the conversion again"),
    Rule("SIDE002", _E, _S, "the sidecar cannot be read", _COPY_AGAIN),
    Rule("SIDE003", _E, _S, "the sidecar belongs to another shard", _MIXED),
    Rule("SIDE004", _E, _S, "the size of the tar is not the sidecar's", _COPY_AGAIN),
    Rule("SIDE005", _E, _C, "the sha256 of the tar is not the sidecar's", _COPY_AGAIN),
    Rule("SIDE006", _E, _S, "the samples table is missing or cannot be read", _COPY_AGAIN),
    Rule("SIDE007", _E, _S, "size or sha256 of the samples table is not the sidecar's", _MIXED),
    Rule("SIDE008", _E, _S, "a row of the samples table is not the tar's member", _MIXED),
    Rule("SIDE009", _E, _C, "the sha256 of a member is not the samples table's", _COPY_AGAIN),
    Rule("SIDE010", _E, _S, "the rejects are missing or not the sidecar's", _MIXED),
    Rule("SIDE011", _E, _S, "the rejects do not add up to the sidecar's tally", _CONVERT_AGAIN),
    Rule("SIDE012", _E, _S, "the sidecar's tally is not what the shard holds", _CONVERT_AGAIN),
    Rule("SIDE013", _E, _C, "a row of the samples table is not what the document says", _MIXED),
    Rule("SIDE014", _E, _S, "the format version is not known here", "use a newer mmdata"),
    Rule("SIDE015", _E, _S, "the outcomes table is not of the shard's records", _MIXED),
    Rule("MAN001", _E, _S, "the manifest cannot be read", _COPY_AGAIN),
    Rule("MAN002", _E, _S, "a shard of the manifest is missing", _COPY_AGAIN),
    Rule("MAN003", _E, _S, "a tar that the manifest does not list", "move it elsewhere"),
    Rule("MAN004", _E, _S, "a row of the manifest does not fit its shard", _MIXED),
    Rule("MAN005", _E, _S, "the sha256 of a sidecar is not the manifest's", _MIXED),
    Rule("MAN006", _E, _S, "the totals are not the sum of the sidecars", _MIXED),
    Rule("MAN007", _W, _S, "incomplete: the conversion is not finished", "run it again to finish"),
    Rule("MAN008", _E, _S, "a sidecar is of another conversion than the manifest", _MIXED),
    Rule("MAN009", _E, _S, "sizes.json does not agree with the manifest", _MIXED),
    Rule("MAN010", _E, _S, "inputs, options or versions are not the fingerprint's", _COPY_AGAIN),
    Rule("MAN011", _E, _S, "a field of the manifest is not known here",
         "update mmdata, or copy it"),
    Rule("MAN012", _E, _S, "the groups are not those of the samples tables", _MIXED),
    Rule("JSON001", _E, _C, "a JSON member is not UTF-8", _SOURCE),
    Rule("JSON002", _E, _C, "a JSON member is not JSON", _SOURCE),
    Rule("JSON003", _E, _C, "an object has a key twice; which one counts is a gamble", _SOURCE),
    Rule("JSON004", _E, _C, "a string has half of a surrogate pair", _SOURCE),
    Rule("JSON005", _E, _C, "a JSON member is nested too deeply to be read", _SOURCE),
    Rule("JSON006", _E, _C, "a JSON member is not an object", _SOURCE),
    Rule("JSON007", _E, _C, "a number that readers refuse or take for infinity", _SOURCE),
    Rule("DOC001", _E, _C, "a field is missing or of the wrong type", _CONVERT_AGAIN),
    Rule("DOC002", _E, _C, "a document has no sentences", _SOURCE,
         check=ask.has_sentences, breaks="shape"),
    Rule("DOC003", _E, _C, "the format version of a document is not known here", "update mmdata",
         check=ask.known_version),
    Rule("DOC004", _E, _C, "images are not in the order of their sentences", _CONVERT_AGAIN,
         check=ask.images_in_order),
    Rule("DOC005", _W, _C, "a document has no similarity_matrix", "OpenFlamingo's loader needs it",
         check=ask.has_matrix),
    Rule("DOC006", _W, _C, "an image is listed without its bytes", "readers skip such images",
         check=ask.images_have_bytes, breaks="nothing"),
    Rule("TXT001", _E, _C, "a media tag stands in the text; loaders count it as an image", _SOURCE,
         check=ask.no_tags_in_text, breaks="nothing"),
    Rule("SIM001", _E, _C, "the matrix has not one row for each image", _CONVERT_AGAIN,
         check=ask.row_for_each_image, breaks="shape"),
    Rule("SIM002", _E, _C, "a row of the matrix has not one value a sentence", _CONVERT_AGAIN,
         check=ask.value_for_each_sentence, breaks="shape"),
    Rule("SIM003", _E, _C, "a similarity is not a finite number", _SOURCE,
         check_matrix=ask.finite),
    Rule("SIM004", _W, _C, "a similarity is no cosine", "divide by 100 if it was multiplied",
         check_matrix=ask.cosine, breaks="nothing"),
    Rule("ALN001", _E, _C, "matched_text_index is not an index into text_list", _CONVERT_AGAIN,
         check=ask.index_in_range, breaks="shape"),
    Rule("ALN002", _E, _C, "matched_sim is not the matrix's value there", _CONVERT_AGAIN,
         check_matrix=ask.matched_value),
    Rule("ALN003", _E, _C, "the assignment is not optimal", "align again (or `given` was meant)",
         check_matrix=ask.optimal),
    Rule("ALN004", _W, _C, "an index is not where the matrix has the image", "align again",
         check_matrix=ask.index_fits_matrix, breaks="nothing"),
    Rule("B64001", _E, _C, "base64 was written as the text of Python bytes, b'...'", _SOURCE),
    Rule("B64002", _E, _C, "base64 is not strict: alphabet, padding, line breaks", _SOURCE),
    Rule("IMG001", _E, _C, "the sha256 of an image is not the one recorded", _COPY_AGAIN),
    Rule("IMG002", _E, _F, "an image cannot be decoded completely", _SOURCE),
    Rule("IMG003", _E, _F, "width, height or format is not what the image says", _CONVERT_AGAIN),
    Rule("IMG004", _W, _F, "an image is of a kind that readers treat differently", _CONVERT_AGAIN),
    Rule("IMG005", _W, _C, "one picture stands for most images", "look whether they were lost"),
    Rule("DUP001", _W, _S, "a document is there more than once", "convert with --dedupe exact"),
    Rule("DUP002", _W, _S, "an image is there more than once", "look whether it says anything"),
    Rule("LEAK001", _E, _S, "a document is in the other dataset too", "drop it in one of the two"),
    Rule("LEAK002", _W, _S, "an image is in the other dataset too", "drop it in one of the two"),
    Rule("LEAK003", _E, _S, "a group (patient, page) is in the other dataset too", _SPLIT_AGAIN),
    Rule("LEAK004", _W, _S, "groups could not be compared with the other dataset's", _SPLIT_AGAIN),
    Rule("DRIFT001", _W, _S, "a shard's mean similarity is far from all others'", "see its source"),
    Rule("PAIR001", _E, _S, "members of a sample are apart; readers split it", _CONVERT_AGAIN),
    Rule("PAIR002", _E, _S, "a sample has no image", _CONVERT_AGAIN),
    Rule("PAIR003", _E, _S, "a sample has no text", _CONVERT_AGAIN),
    Rule("PAIR004", _E, _C, "a text is not UTF-8", _SOURCE),
)
# fmt: on

RULES: dict[str, Rule] = {rule.code: rule for rule in _ROWS}


def check_document(parsed: Parsed) -> Iterator[tuple[Rule, Problem]]:
    """Every problem of one document, with the rule that it breaks."""
    has_shape = True
    for rule in RULES.values():
        for problem in rule.check(parsed) if rule.check else ():
            has_shape = has_shape and rule.breaks != "shape"
            yield rule, problem
    matrix = ask.similarity_array(parsed) if has_shape else None
    if matrix is not None:
        for rule in RULES.values():
            for problem in rule.check_matrix(parsed, matrix) if rule.check_matrix else ():
                yield rule, problem
