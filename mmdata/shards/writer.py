"""Write one shard: the tar, its samples table and rejects, and last the sidecar that commits it.

Everything goes to temporary names, hashed while it is written; `commit` syncs, renames tar, table
and rejects, and then the sidecar. Until the sidecar is there, the shard does not exist; a crash at
any point leaves nothing half-written under a final name. Memory holds one row a sample, no images.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mmdata.errors import MMDataError
from mmdata.shards.columns import arrow_array
from mmdata.shards.energon import encode_offsets
from mmdata.shards.groups import GroupLabel
from mmdata.shards.naming import REJECTS, SAMPLES, SIDECAR, TAR, TAR_INDEX, sample_key, shard_stem
from mmdata.shards.tar import END_MARK, member_header, padding
from mmdata.storage.atomic import Pending, pending_file, remove, sync_folder, write_atomically
from schemas.document import FORMAT_VERSION
from schemas.manifest import (
    GROUP_COLUMNS,
    SAMPLES_COLUMNS,
    Kind,
    Layout,
    Reject,
    Sidecar,
    SourceSpan,
    Tally,
)


class LeaseLostError(MMDataError):
    """The output folder was taken over by another run; this one must not commit."""


class ShardWriter:
    """One shard in the making.

    Attributes:
        tally: what came in, went out and was dropped, kept by the caller.
    """

    def __init__(
        self,
        folder: str,
        index: int,
        *,
        key_prefix: str = "",
        energon: bool = False,
        groups: GroupLabel | None = None,
    ) -> None:
        """Open the tar under a temporary name.

        Args:
            folder: that the shard is written to.
            index: of the shard.
            key_prefix: of its sample keys.
            energon: Energon's index is written with it.
            groups: rows tell the groups of their samples, by this field and key.
        """
        self.folder = folder
        self.stem = shard_stem(index)
        self.tally = Tally(documents_dropped={}, images_dropped={}, notes={})
        self._key_prefix = key_prefix
        self._energon = energon
        self._groups = groups
        self._starts: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._rejects: list[Reject] = []
        self._attached: list[Pending] = []
        self._tar = pending_file(self._path(TAR))

    def add(self, ordinal: int, span: SourceSpan, parts: list[bytes], row: dict[str, Any]) -> None:
        """Append a sample.

        Args:
            ordinal: of its record in the whole input.
            span: its one record in the source.
            parts: the member's data, in pieces.
            row: its row of the samples table, less key, offset and provenance.
        """
        self.add_members(ordinal, span, [("json", parts)], row)

    def add_members(
        self,
        ordinal: int,
        span: SourceSpan,
        members: Sequence[tuple[str, Sequence[bytes]]],
        row: dict[str, Any],
    ) -> None:
        """Append a sample of several members; the table's offset is that of the first.

        Args:
            ordinal: of its record in the whole input.
            span: its one record in the source.
            members: (extension, data in pieces), in order.
            row: as in `add`.
        """
        key = sample_key(ordinal, self._key_prefix)
        place: dict[str, Any] = {"key": key}
        self._starts.append(self._tar.size)
        for extension, parts in members:
            size = sum(map(len, parts))
            self._tar.write(member_header(f"{key}.{extension}", size))
            place.setdefault("offset", self._tar.size)
            for part in parts:
                self._tar.write(part)
            self._tar.write(padding(size))
        place |= {"source_file": span.file, "source_member": span.member}
        self._rows.append(place | {"source_record": span.first_record} | row)

    def attach(self, ending: str) -> Pending:
        """A further file beside the shard, committed with it; the caller writes it."""
        pending = pending_file(self._path(ending))
        self._attached.append(pending)
        return pending

    def reject(self, reject: Reject) -> None:
        """Note something that was dropped or set right."""
        self._rejects.append(reject)

    def commit(
        self,
        *,
        kind: Kind,
        fingerprint: str,
        first_ordinal: int,
        source: list[SourceSpan],
        may_commit: Callable[[], bool],
        layout: Layout = "interleaved",
    ) -> Sidecar:
        """Make the shard exist.

        Args:
            kind: of the conversion.
            fingerprint: of inputs, options and versions.
            first_ordinal: of the shard's first record.
            source: where its records come from.
            may_commit: whether this run still holds the output's lease; asked before the renames.
            layout: of its samples.

        Raises:
            LeaseLostError: another run has taken over.
        """
        pending = [self._tar]
        try:
            self._finish_tar()
            pending.append(table := pending_file(self._path(SAMPLES)))
            pending.append(rejects := pending_file(self._path(REJECTS)))
            table.write(samples_table(self._rows, self._groups))
            for reject in self._rejects:
                rejects.write(msgspec.json.encode(reject) + b"\n")
            pending += self._attached
            tar_sha256, table_sha256, rejects_sha256, *_ = [file.finish() for file in pending]
            if not may_commit():
                raise LeaseLostError(f"{self.folder}: another run has taken over; nothing is lost")
            self._publish(pending)
        except BaseException:
            for file in [*pending, *self._attached]:
                file.discard()
            raise
        sidecar = Sidecar(
            format_version=FORMAT_VERSION,
            kind=kind,
            layout=layout,
            shard=self.stem + TAR,
            bytes=self._tar.size,
            sha256=tar_sha256,
            samples_bytes=table.size,
            samples_sha256=table_sha256,
            rejects_bytes=rejects.size,
            rejects_sha256=rejects_sha256,
            first_ordinal=first_ordinal,
            source=source,
            tally=self.tally,
            fingerprint=fingerprint,
        )
        write_atomically(self._path(SIDECAR), encode_record(sidecar))
        return sidecar

    def _finish_tar(self) -> None:
        if self._energon:
            index = self.attach(TAR_INDEX)
            index.write(encode_offsets([*self._starts, self._tar.size]))
        self._tar.write(END_MARK)

    def _publish(self, pending: list[Pending]) -> None:
        """Rename what the sidecar will vouch for; an old sidecar vouches for nothing any more."""
        stale = [] if self._energon else [self._path(TAR_INDEX)]
        remove([self._path(SIDECAR), *stale])
        sync_folder(self.folder)
        for file in pending:
            file.publish()
        sync_folder(self.folder)

    def discard(self) -> None:
        """Leave nothing behind."""
        for file in [self._tar, *self._attached]:
            file.discard()

    def _path(self, ending: str) -> str:
        return os.path.join(self.folder, self.stem + ending)


def encode_record(record: msgspec.Struct) -> bytes:
    """A sidecar, manifest or the like as indented JSON with a final line feed."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def samples_table(rows: list[dict[str, Any]], groups: GroupLabel | None = None) -> bytes:
    """The samples table as a parquet file (zstd, one row group; columns as in the schema).

    Args:
        rows: of the samples.
        groups: what their column `group` holds; None without one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = SAMPLES_COLUMNS | (GROUP_COLUMNS if groups else {})
    arrays = {
        name: arrow_array(kind, [row[name] for row in rows]) for name, (kind, _) in kinds.items()
    }
    table = pa.Table.from_arrays(list(arrays.values()), names=list(arrays))
    if groups:
        table = table.replace_schema_metadata(groups.metadata())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=max(len(rows), 1))
    return bytes(sink.getvalue())
