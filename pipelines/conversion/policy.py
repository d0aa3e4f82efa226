"""From a converter's options to what decides its bytes: the policy for documents and images."""

from typing import Any

from mmdata.samples.assemble import AssemblyPolicy
from mmdata.shards.groups import GroupLabel
from mmdata.sources.keyed_hash import PUBLIC_KEY
from mmdata.sources.split import Grouping
from pipelines.conversion.options import Conversion
from pipelines.conversion.secret_key import read_key

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


def grouping_of(options: Conversion) -> Grouping | None:
    """What keeps documents together: by the field that was named, or for splits by the id.

    Raises:
        UserError: the key of its hashes cannot be used.
    """
    if options.split is None and options.split_by is None:
        return None
    by, asked = options.split_by or "id", options.split_by is not None
    return Grouping(by, read_key(options) or PUBLIC_KEY, asked=asked)


def group_options(grouping: Grouping | None) -> dict[str, Any]:
    """The options that the samples tables depend on, for the fingerprint; none without groups."""
    if grouping is None or not grouping.asked:
        return {}
    return {"group_by": grouping.by, "group_key": grouping.key_id}


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
        grouping=grouping_of(options),
    )


def group_label(policy: AssemblyPolicy) -> GroupLabel | None:
    """What the samples tables say of groups; None where nothing is to stay together."""
    grouping = policy.grouping
    if grouping is None or not grouping.asked:
        return None
    return GroupLabel(grouping.by, grouping.key_id)
