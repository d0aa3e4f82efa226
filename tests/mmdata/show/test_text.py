"""`show`: a document as text, and its pictures as files."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.show.text import show
from tests.shard_factory import (
    encode,
    foreign,
    make_dataset,
    make_document,
    make_image,
    make_pairs,
    make_tar,
)


@dataclass
class Options:
    shards: tuple[str, ...]
    key: str | None = None
    random: int | None = None
    seed: int = 0
    extract: str | None = None


def test_a_document_with_its_images_where_they_sit(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    shard = dataset.path()
    document = make_document(0, kinds=("jpeg", "png", "webp"), images=3)
    size = len(encode(document))
    images = document["image_info"]
    margins = dataset.read_samples()[0]["margin"]
    lines = show(Options((str(tmp_path),), key="000000000000")).splitlines()
    assert lines[:7] == [
        f"000000000000  {shard} @ 512 ({size:,} bytes)",
        "source: docs_shard_0_v2.jsonl.zip > docs_shard_0_v2.jsonl, record 0",
        "url: https://example.org/0",
        "alignment: assigned",
        "similarity_source: mmc4",
        "3 sentences, 3 images",
        "  [0] Sentence 0 of page 0, é.",
    ]
    assert lines[7] == (
        f"      + image 0: 24x16 {images[0]['format']} 460 bytes, "
        f"similarity {images[0]['matched_sim']:.4f} (margin {margins[0]:+.4f}), "
        f"name '{images[0]['image_name']}'"
    )
    assert len(lines) == 12


def test_the_key_may_be_in_any_of_the_shards(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    assert show(Options((str(tmp_path),), key="000000000005")).startswith("000000000005  ")
    with pytest.raises(UserError, match="no shard of 2 holds the key 'x'"):
        show(Options((str(tmp_path),), key="x"))


def test_without_a_key_the_first(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    assert show(Options((str(tmp_path),))).startswith("000000000000  ")


def test_some_at_random_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    make_dataset(tmp_path, shards=3)

    def keys(seed: int, count: int = 2) -> list[str]:
        text = show(Options((str(tmp_path),), random=count, seed=seed))
        return [block.split()[0] for block in text.split("\n\n")]

    assert keys(1) == keys(1)
    assert len({tuple(keys(seed)) for seed in range(8)}) > 1
    assert len(set(keys(0, 9))) == 9
    assert len(keys(0, 50)) == 9


def test_others_shards_show_what_they_have(tmp_path: Path) -> None:
    document = foreign(make_document(1, images=1, sentences=1))
    document["image_info"][0] = {"image_name": "a.jpg", "matched_text_index": 5}
    (tmp_path / "0.tar").write_bytes(make_tar([("k.json", encode(document))]))
    assert show(Options((str(tmp_path / "0.tar"),))).splitlines()[1:] == [
        "url: https://example.org/1",
        "1 sentence, 1 image",
        "  [0] Sentence 0 of page 1, é.",
        "  [5] (there is no such sentence)",
        "      + image 0: no bytes, name 'a.jpg'",
    ]


def test_pairs(tmp_path: Path) -> None:
    text = show(Options((str(make_pairs(tmp_path)),), key="000000001"))
    assert text.splitlines()[1:3] == [
        f"      + image 0: jpg, {len(make_image(1)):,} bytes",
        "  caption 1",
    ]


def test_pictures_are_named_by_key_and_number_alone(tmp_path: Path) -> None:
    documents = [foreign(make_document(number, images=1)) for number in range(3)]
    for document in documents:
        document["image_info"][0]["image_name"] = "../../../evil.jpg"
    keys = ["../../evil", "d/x", "d_x"]
    tar = make_tar([(f"{k}.json", encode(d)) for k, d in zip(keys, documents, strict=True)])
    (tmp_path / "0.tar").write_bytes(tar)
    out = tmp_path / "out"
    show(Options((str(tmp_path / "0.tar"),), random=3, extract=str(out)))
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all(path.parts[0] == "out" and path.suffix == ".jpg" for path in written[1:])
    assert written[0] == Path("0.tar")
    assert {path.read_bytes() for path in out.iterdir()} == {make_image(n * 100) for n in range(3)}


def test_text_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    document = foreign(make_document(1, images=0, sentences=1))
    document["text_list"] = ["a\x1b[2Jb"]
    (tmp_path / "0.tar").write_bytes(make_tar([("k.json", encode(document))]))
    assert "\x1b" not in show(Options((str(tmp_path / "0.tar"),)))


def test_what_is_no_document_is_said(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(make_tar([("k.json", b"[]")]))
    assert show(Options((str(tmp_path / "0.tar"),))).splitlines()[1] == (
        "not a document: JSON006 expected `object`, got `array` - at `$`"
    )


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        show(Options((str(tmp_path / "none.tar"),)))
    (tmp_path / "0.tar").write_bytes(make_tar([]))
    with pytest.raises(UserError, match="no samples in 1 shard"):
        show(Options((str(tmp_path),)))
    with pytest.raises(UserError, match="a key or --random, not both"):
        show(Options((str(tmp_path),), key="k", random=1))
