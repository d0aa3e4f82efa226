"""The rule that ties the outcomes table to its shard: SIDE015, where there is such a table.

A table of another run would make `--retry-failed` fetch the wrong rows, or none.
"""

from os.path import basename

from mmdata.shards.naming import OUTCOMES, TAR
from mmdata.storage.files import exists, read_bytes
from mmdata.validation.findings import Findings
from mmdata.validation.sidecar_rules import Table
from schemas.manifest import Sidecar
from schemas.reasons import DocumentDrop

_KEPT = "kept"


def outcomes_fit(sidecar: Sidecar, shard: str, table: Table | None, findings: Findings) -> None:
    """SIDE015: a row for each record, `kept` for each sample.

    Args:
        sidecar: of the shard.
        shard: path of the tar.
        table: the samples table; None where it cannot be used.
        findings: take what is wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = shard.removesuffix(TAR) + OUTCOMES
    if not exists(path):
        return
    name = basename(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(read_bytes(path)), pre_buffer=False)
        rows = file.read(columns=["key", "result"], use_threads=False).to_pydict()
    except (OSError, KeyError, pa.ArrowException) as error:
        findings.add("SIDE015", f"{name}, a table of outcomes", str(error))
        return
    if set(rows) != {"key", "result"}:
        findings.add("SIDE015", f"{name} with columns key and result", ", ".join(rows) or "none")
        return
    if len(rows["key"]) != sidecar.tally.records:
        expected = f"{sidecar.tally.records} rows, one a record"
        findings.add("SIDE015", expected, f"{len(rows['key'])} in {name}")
    kept = [key for key, end in zip(rows["key"], rows["result"], strict=True) if end == _KEPT]
    # Duplicates are dropped from a shard after its table was written.
    wanted = sidecar.tally.documents + sidecar.tally.documents_dropped.get(
        DocumentDrop.DUPLICATE_DOCUMENT, 0
    )
    strangers = sorted(set(table["key"]) - set(kept)) if table is not None else []
    if len(kept) != wanted or strangers:
        key = strangers[0] if strangers else ""
        expected = f"{wanted} rows with result kept, the samples' among them"
        findings.add("SIDE015", expected, f"{len(kept)} in {name}", key=key)
