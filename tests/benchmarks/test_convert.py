"""The corpus of baseline JPEGs is the corpus less all else, and a valid one."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.convert import keep_baseline


def jpeg(*, progressive: bool) -> bytes:
    out = BytesIO()
    Image.new("RGB", (32, 32), "red").save(out, "JPEG", progressive=progressive)
    return out.getvalue()


def test_only_baseline_jpegs_stay_with_their_rows(tmp_path: Path) -> None:
    images = tmp_path / "images" / "0"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(jpeg(progressive=True))
    (images / "b.jpg").write_bytes(jpeg(progressive=False))
    Image.new("RGB", (8, 8)).save(images / "c.png")
    both = {
        "text_list": ["x", "y"],
        "image_info": [{"image_name": name} for name in ("a.jpg", "b.jpg", "c.png")],
        "similarity_matrix": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
    }
    none = both | {"image_info": [{"image_name": "c.png"}], "similarity_matrix": [[0.1, 0.2]]}
    with zipfile.ZipFile(tmp_path / "docs_0.jsonl.zip", "w") as archive:
        archive.writestr("docs_0.jsonl", "\n".join(map(json.dumps, (both, none))))
    out = tmp_path / "baseline"
    out.mkdir()
    keep_baseline(tmp_path / "docs_0.jsonl.zip", images, out)
    with zipfile.ZipFile(out / "docs_0.jsonl.zip") as archive:
        (line,) = archive.read("docs_0.jsonl").decode().split("\n")
    assert json.loads(line) == both | {
        "image_info": [{"image_name": "b.jpg"}],
        "similarity_matrix": [[0.3, 0.4]],
    }
    assert [path.name for path in (out / "images" / "0").iterdir()] == ["b.jpg"]
