"""Lists of image-text pairs for tests, and what a conversion made of them.

rows(web, n)              rows of URLs of the test web, with LAION's columns
write(path, rows)         as parquet, CSV, TSV or JSON lines, by the ending of the path
options(inputs, output)   of a conversion in this process, over loopback
outcomes(output)          the rows of every outcomes table
pairs(output)             the samples of layout pairs, by key: {extension: bytes}
"""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.shards.reader import ShardReader
from pipelines.laion.options import ConvertLaion
from tests.web import Web


def rows(web: Web, count: int, *, path: str = "/ok/{}.jpg", **columns: Any) -> list[dict[str, Any]]:
    """Rows of pictures 0 to count - 1."""
    return [
        {
            "SAMPLE_ID": 1000 + number,
            "URL": web.url(path.format(number)),
            "TEXT": f"Picture {number}, ü.",
            "WIDTH": 48,
            "HEIGHT": 36,
            "similarity": round(0.2 + number / 100, 4),
            "punsafe": number / 10,
            "pwatermark": 1 - number / 10,
            "NSFW": ["UNLIKELY", "UNSURE", "NSFW"][number % 3],
            **columns,
        }
        for number in range(count)
    ]


def write(path: Path, table: list[dict[str, Any]], **options: Any) -> Path:
    """Write rows by the ending of the path."""
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(table), path, **options)
        return path
    if ".jsonl" in name:
        data = "".join(json.dumps(row) + "\n" for row in table).encode()
    else:
        sink = io.StringIO()
        delimiter = "\t" if ".tsv" in name else ","
        writer = csv.DictWriter(sink, list(table[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)
        data = sink.getvalue().encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def options(inputs: Path | list[Path], output: Path, **more: Any) -> ConvertLaion:
    """The options of a conversion, in this process unless told otherwise."""
    given: dict[str, Any] = {
        "inputs": tuple(map(str, inputs if isinstance(inputs, list) else [inputs])),
        "output": str(output),
        "workers": 0,
        "allow_private_hosts": True,
        "timeout": 5.0,
        "retries": 0,
    }
    return ConvertLaion(**(given | more))


def outcomes(output: Path) -> list[dict[str, Any]]:
    """The rows of every outcomes table, in order."""
    found: list[dict[str, Any]] = []
    for path in sorted(output.glob("*.outcomes.parquet")):
        found += pq.read_table(path).to_pylist()
    return found


def pairs(output: Path) -> dict[str, dict[str, bytes]]:
    """Every sample's members."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(output.glob("*.tar")):
        with ShardReader(path) as reader:
            for sample in reader:
                found[sample.key] = {k: bytes(data) for k, data in sample.members.items()}
    return found
