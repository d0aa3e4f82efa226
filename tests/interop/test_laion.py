"""Shards of convert-laion in other people's hands: webdataset and OpenFlamingo's rules for pairs.

And other people's CLIP in ours: similarities that are computed on the way.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.clip.model import ClipScorer
from pipelines.laion.options import ConvertLaion
from pipelines.laion.run import convert_laion
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.clip_factory import make_clip
from tests.corpus import documents_of, picture
from tests.laion_factory import pairs

# What these libraries warn of in themselves is not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
COUNT = 7


def convert(tmp_path: Path, layout: str, **more: object) -> Path:
    table = pa.table(
        {
            "jpg": [picture(k) for k in range(COUNT)],
            "caption": [f"Picture {k}" for k in range(COUNT)],
            "url": [f"http://example.org/{k}.jpg" for k in range(COUNT)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    options = ConvertLaion(
        inputs=(str(tmp_path / "a.parquet"),),
        output=str(tmp_path / layout),
        layout=layout,  # type: ignore[arg-type]
        fetcher="none",
        workers=0,
        docs_per_shard=3,
        **more,  # type: ignore[arg-type]
    )
    assert convert_laion(options, quiet=True).exit_code == 0
    assert validate(Validate(shards=(str(tmp_path / layout),), workers=0)).exit_code == 0
    return tmp_path / layout


def test_webdataset_reads_pairs_as_clip_trainers_do(tmp_path: Path) -> None:
    """`jpg;png` beside `txt`, as open_clip and OpenFlamingo ask for them."""
    import webdataset

    shards = convert(tmp_path, "pairs")
    last = len(list(shards.glob("*.tar"))) - 1
    pattern = str(shards / f"{{000000000..{last:09d}}}.tar")
    dataset = webdataset.WebDataset(pattern, shardshuffle=False).to_tuple("jpg;png", "txt", "json")
    read = list(dataset)
    assert [(image, text.decode()) for image, text, _ in read] == [
        (picture(k), f"Picture {k}") for k in range(COUNT)
    ]
    assert [json.loads(data)["url"] for *_, data in read] == [
        f"http://example.org/{k}.jpg" for k in range(COUNT)
    ]
    sizes = json.loads((shards / "sizes.json").read_text())
    assert sum(sizes.values()) == COUNT


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_clip_fills_in_the_similarity(tmp_path: Path, layout: str) -> None:
    pytest.importorskip("open_clip")
    clip = make_clip(tmp_path / "models" / "tiny")
    shards = convert(tmp_path, layout, clip_model=clip, clip_batch_size=4)
    scorer = ClipScorer(clip, batch_size=4)
    expected = [scorer.similarity([picture(k)], [f"Picture {k}"]).item() for k in range(COUNT)]
    if layout == "pairs":
        found = [json.loads(sample["json"]) for sample in pairs(shards).values()]
        values = [metadata["similarity"] for metadata in found]
        sources = {metadata["similarity_source"] for metadata in found}
    else:
        documents = documents_of(shards).values()
        values = [document["similarity_matrix"][0][0] for document in documents]
        sources = {document["similarity_source"] for document in documents}
        assert {document["alignment"] for document in documents} == {"given"}
    assert values == pytest.approx(expected, abs=2e-6)
    assert sources == {scorer.spec.source}
