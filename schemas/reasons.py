"""Why something did not reach a shard, or reached it with a remark.

Every drop carries one of these; reports count by them. Values are what stands in reject files,
sidecars and manifests, so they never change meaning: new ones are added, old ones stay.
"""

from enum import StrEnum


class ImageDrop(StrEnum):
    """Why an image was left out of its document."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    INCOMPLETE_SCANS = "incomplete-scans"
    TOO_SMALL = "too-small"
    TOO_LARGE = "too-large"
    BAD_ASPECT = "bad-aspect"
    NOT_AN_IMAGE = "not-an-image"
    UNSUPPORTED_FORMAT = "unsupported-format"
    DUPLICATE_IN_DOCUMENT = "duplicate-in-document"
    UNSAFE_PATH = "unsafe-path"
    AMBIGUOUS_NAME = "ambiguous-name"
    JPEG_WARNING = "jpeg-warning"
    LOW_SIMILARITY = "low-similarity"
    SURPLUS = "surplus"
    DOCUMENT_DROPPED = "document-dropped"
    BAD_ROW = "bad-row"
    NO_SENTENCE = "no-sentence"
    HASH_MISMATCH = "hash-mismatch"
    NOT_FETCHED = "not-fetched"
    UNSAFE_URL = "unsafe-url"
    NOAI = "noai"


class ImageNote(StrEnum):
    """What was remarkable about an image that was kept."""

    JPEG_WARNING = "jpeg-warning"
    TRAILING_BYTES = "trailing-bytes"
    FIRST_FRAME = "first-frame"
    WRONG_EXTENSION = "wrong-extension"
    WINDOWED = "windowed"
    REENCODED = "reencoded"
    FOUND_BY_FILE_URL = "found-by-file-url"
    FOUND_BY_DOT_PARTS = "found-by-dot-parts"
    FOUND_BY_BACKSLASH = "found-by-backslash"
    FOUND_BY_PERCENT_ENCODING = "found-by-percent-encoding"
    FOUND_BY_UNICODE_FORM = "found-by-unicode-form"
    FOUND_BY_EXTENSION_CASE = "found-by-extension-case"
    FOUND_BY_SUFFIX = "found-by-suffix"
    FOUND_BY_OTHER_EXTENSION = "found-by-other-extension"


class DocumentDrop(StrEnum):
    """Why a whole record was left out of its shard."""

    BAD_JSON = "bad-json"
    NOT_UTF8 = "not-utf8"
    NOT_AN_OBJECT = "not-an-object"
    DUPLICATE_KEYS = "duplicate-keys"
    LONE_SURROGATE = "lone-surrogate"
    TOO_DEEP = "too-deep"
    RECORD_TOO_LARGE = "record-too-large"
    BAD_SCHEMA = "bad-schema"
    NO_TEXT = "no-text"
    NO_MATRIX = "no-matrix"
    BAD_MATRIX = "bad-matrix"
    NON_FINITE = "non-finite"
    BAD_NUMBER = "bad-number"
    NO_IMAGES_LISTED = "no-images-listed"
    NO_IMAGES_LEFT = "no-images-left"
    IMAGE_MISSING = "image-missing"
    IMAGE_UNUSABLE = "image-unusable"
    IMAGES_TOO_LARGE = "images-too-large"
    TOO_FEW_IMAGES = "too-few-images"
    URL_DUPLICATE = "url-duplicate"
    DUPLICATE_DOCUMENT = "duplicate-document"
    LOST = "lost"
    NOT_A_SAMPLE = "not-a-sample"
    UNKNOWN_FORMAT = "unknown-format"
    TAG_MISMATCH = "tag-mismatch"
    NO_URL = "no-url"
    LOW_CAPTION_SIMILARITY = "low-caption-similarity"
    UNSAFE = "unsafe"
    WATERMARK = "watermark"
    NSFW = "nsfw"
    LISTED_TOO_SMALL = "listed-too-small"
    LISTED_BAD_ASPECT = "listed-bad-aspect"


#: Drops for form: the record is not of the format that is read. The others say that a record of the
#: format was not wanted, not complete, or there before. A run of which every record is dropped for
#: its form has failed.
FORM_DROPS = frozenset(
    (
        *(DocumentDrop.BAD_JSON, DocumentDrop.NOT_UTF8, DocumentDrop.NOT_AN_OBJECT),
        *(DocumentDrop.DUPLICATE_KEYS, DocumentDrop.LONE_SURROGATE, DocumentDrop.TOO_DEEP),
        *(DocumentDrop.RECORD_TOO_LARGE, DocumentDrop.BAD_SCHEMA, DocumentDrop.NO_TEXT),
        *(DocumentDrop.NO_MATRIX, DocumentDrop.BAD_MATRIX, DocumentDrop.NON_FINITE),
        DocumentDrop.BAD_NUMBER,
        *(DocumentDrop.UNKNOWN_FORMAT, DocumentDrop.NO_URL, DocumentDrop.NOT_A_SAMPLE),
    )
)


class DocumentNote(StrEnum):
    """What was remarkable about a document that was kept."""

    BAD_MATCHED_INDEX = "bad-matched-index"
    MORE_TAGS_THAN_IMAGES = "more-tags-than-images"
    FEWER_TAGS_THAN_IMAGES = "fewer-tags-than-images"
    NO_TAGS = "no-tags"
    TAG_IN_ANSWER = "tag-in-answer"
    NAMES_IN_TEXT = "names-in-text"
    ID_LEFT_IN_TEXT = "id-left-in-text"
    MAYBE_A_PERSON = "maybe-a-person"
    BAD_SIMILARITY = "bad-similarity"
    NO_GROUP = "no-group"
    SEVERAL_CAPTIONS = "several-captions"


class RepairNote(StrEnum):
    """What was set right in a sample that was saved."""

    HEADER_MENDED = "header-mended"
    BEHIND_END = "behind-end"
    NO_END_MARK = "no-end-mark"
    REGROUPED = "regrouped"
    RENAMED = "renamed"
    JSON_MENDED = "json-mended"
    BASE64_MENDED = "base64-mended"
    REALIGNED = "realigned"
    REORDERED = "reordered"
    SIMILARITY_CORRECTED = "similarity-corrected"
    FACTS_CORRECTED = "facts-corrected"
    TEXT_DIFFERS = "text-differs"
    MEMBER_LOST = "member-lost"
    CAPTION_RESTORED = "caption-restored"
