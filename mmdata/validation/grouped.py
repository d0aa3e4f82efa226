"""Whether groups of two datasets can be compared: of the same field, hashed with the same key."""

from collections.abc import Sequence
from os.path import dirname

from mmdata.errors import BadInputError, UserError
from mmdata.shards.groups import GroupLabel, read_label
from mmdata.shards.reader import samples_path
from mmdata.storage.files import exists
from mmdata.validation.findings import Findings


def labels_of(paths: Sequence[str]) -> dict[GroupLabel | None, str]:
    """What the samples tables of shards say of groups, and the first shard that says so.

    A shard without a table, or with one that cannot be read, tells no groups.
    """
    found: dict[GroupLabel | None, str] = {}
    for path in paths:
        table = samples_path(path)
        try:
            label = read_label(table) if exists(table) else None
        except BadInputError:  # a rule of its own tells of it
            label = None
        found.setdefault(label, path)
    return found


def check_keys(paths: Sequence[str], other: Sequence[str]) -> None:
    """Refuse to compare groups whose hashes were made with different keys: none would be equal.

    Args:
        paths: shards of the dataset.
        other: shards that it is compared with.

    Raises:
        UserError: there are two keys; names a shard of each.
    """
    keys: dict[str, str] = {}
    for label, path in [*labels_of(paths).items(), *labels_of(other).items()]:
        if label is not None:
            keys.setdefault(label.key, path)
    if len(keys) > 1:
        (first, one), (second, another) = list(keys.items())[:2]
        raise UserError(
            f"--against: the groups of {one} (key {first}) and {another} (key {second}) are hashed "
            "with different keys and cannot be compared: convert both with the same "
            "--pseudonym-key, or both without"
        )


def report_uncompared(paths: Sequence[str], other: Sequence[str], findings: Findings) -> None:
    """LEAK004: one side tells groups that the other does not, or by another field."""
    own, others = labels_of(paths), labels_of(other)
    fields = {label.by for label in (*own, *others) if label is not None}
    if not fields:
        return
    for shards in (own, others):
        if None in shards:
            expected = f"groups by {' or '.join(sorted(fields))}, as other shards tell them"
            where = dirname(shards[None]) or "."
            findings.add("LEAK004", expected, f"none told in {where}", shard=shards[None])
    if len(fields) > 1:
        got = f"groups by {', '.join(sorted(fields))}"
        findings.add("LEAK004", "groups by one field", got, shard=paths[0])
