"""Datasets to report on, and the page that comes out.

hostile_dataset(folder)     two documents: one hostile in every text it has, one plain
write_report(folder, ...)   the page over a folder of shards, by the command's own code
"""

import json
from pathlib import Path
from typing import Any

from pipelines.report.options import Report
from pipelines.report.run import ReportResult, report
from tests.shard_factory import Dataset, make_document, make_shard_of

SCRIPT = "<script>document.title='owned'</script>"
BREAKOUT = "\"'><img src=x onerror=\"document.title='owned'\"><svg/onload=document.title='owned'>"
CLOSING = "</style></script></td></table><h1>injected</h1><style>body{display:none}</style>"


def hostile_dataset(folder: Path) -> Dataset:
    """Markup in sentences, names, URLs, keys of JSON, rejects, and the name of an input."""
    hostile = make_document(1, images=2, sentences=3)
    hostile["text_list"] = [SCRIPT, BREAKOUT, CLOSING + "\u202egnp.exe\x1b[2J"]
    hostile["url"] = "javascript:document.title='owned'//" + BREAKOUT
    hostile["similarity_source"] = SCRIPT
    for image in hostile["image_info"]:
        image["image_name"] = f"../../{BREAKOUT}.jpg"
        image["raw_url"] = f"https://example.org/{SCRIPT}"
    dataset = make_shard_of(folder, hostile, make_document(2))
    rows = dataset.read_samples()
    rows[0] |= {"source_file": SCRIPT, "source_member": BREAKOUT}
    dataset.write_samples(0, rows)
    reject = {"action": "dropped-image", "reason": BREAKOUT, "file": SCRIPT, "record": 0}
    reject |= {"key": rows[0]["key"], "image": CLOSING, "detail": SCRIPT}
    dataset.path(0, ".rejects.jsonl").write_text(json.dumps(reject) + "\n", encoding="utf-8")
    dataset.sign()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["inputs"][0]["file"] = SCRIPT
    manifest["options"] = {BREAKOUT: CLOSING}
    manifest["versions"] = {SCRIPT: BREAKOUT}
    manifest["excluded_inputs"] = [{"file": SCRIPT, "problem": BREAKOUT}]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return dataset


def write_report(folder: Path, output: Path, **options: Any) -> ReportResult:
    """The page over a folder of shards."""
    given: dict[str, Any] = {"workers": 0, "min_image_bytes": 0} | options
    return report(Report(shards=(str(folder),), output=str(output), **given))
