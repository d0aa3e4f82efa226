"""From a converter's options to what decides its bytes: the policy for documents and images."""

from typing import Any

from mmdata.assemble import AssemblyPolicy
from pipelines.options import Conversion

#: Options that change the bytes of the shards (docs_per_shard is the plan's).
BYTE_OPTIONS = (
    "verify",
    "on_missing",
    "keep_text_only",
    "drop_duplicate_images",
    "dedupe",
    "drop_url_duplicates",
    "min_images",
    "max_images",
    "min_similarity",
    "max_pixels",
    "max_aspect",
    "min_side",
    "min_bytes",
    "jpeg_warnings",
    "max_side",
    "resize_mode",
    "image_format",
    "quality",
    "max_record_bytes",
    "max_document_bytes",
    "key_prefix",
)


def byte_options(options: Conversion) -> dict[str, Any]:
    """The common options that change the shards' bytes, for the fingerprint."""
    return {name: getattr(options, name) for name in BYTE_OPTIONS}


def assembly_policy(options: Conversion) -> AssemblyPolicy:
    """What a document must be like, from the options."""
    return AssemblyPolicy(
        images=options.image_policy(),
        on_missing=options.on_missing,
        keep_text_only=options.keep_text_only,
        drop_duplicate_images=options.drop_duplicate_images or options.dedupe == "exact",
        drop_url_duplicates=options.drop_url_duplicates,
        min_images=options.min_images,
        max_images=options.max_images,
        min_similarity=options.min_similarity,
        max_document_bytes=options.max_document_bytes,
    )
