"""Images in tars, in img2dataset's output or in parquet: the same bytes by name or URL.

The layouts are written as img2dataset 1.47 writes them: `00000.tar` or `00000/` of `{key}.jpg`,
`{key}.txt`, `{key}.json`, beside them `00000.parquet` and `00000_stats.json`.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.errors import BadInputError, UserError
from mmdata.images import ImageRejected
from mmdata.sources.image_store import check_images, find_images, open_images
from mmdata.sources.names import NamedImages
from tests.corpus import picture

NAMES = [f"img{k}.jpg" for k in range(5)]
PICTURES = {name: picture(k) for k, name in enumerate(NAMES)}
MAX_BYTES = 10_000


def url(name: str) -> str:
    return f"https://example.org/{name}"


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def metadata(name: str, key: str) -> bytes:
    return json.dumps({"url": url(name), "key": key, "status": "success", "exif": "{}"}).encode()


def plain_tars(folder: Path) -> None:
    """Two tars, the second with folders and a long name in GNU's way."""
    write_tar(folder / "a.tar", {name: PICTURES[name] for name in NAMES[:2]})
    rest = {f"{'deep/' * 30}{name}": PICTURES[name] for name in NAMES[2:]}
    write_tar(folder / "b.tar", rest, tarfile.GNU_FORMAT)


def img2dataset_tars(folder: Path) -> None:
    """Keys say nothing of the names; the third download failed, so that a key is missing."""
    for shard, names in enumerate((NAMES[:3], NAMES[3:])):
        members = {}
        for k, name in enumerate(names):
            key = f"{shard:05d}{k:04d}"
            members |= {f"{key}.jpg": PICTURES[name], f"{key}.txt": b"a caption"}
            members[f"{key}.json"] = metadata(name, key)
        write_tar(folder / f"{shard:05d}.tar", members)
        (folder / f"{shard:05d}_stats.json").write_text("{}")


def img2dataset_files(folder: Path, *, tables: bool = True) -> None:
    for shard, names in enumerate((NAMES[:3], NAMES[3:])):
        inside = folder / f"{shard:05d}"
        inside.mkdir(parents=True)
        keys = [f"{shard:05d}{k:04d}" for k in range(len(names))]
        for key, name in zip(keys, names, strict=True):
            (inside / f"{key}.jpg").write_bytes(PICTURES[name])
            (inside / f"{key}.json").write_bytes(metadata(name, key))
        (folder / f"{shard:05d}_stats.json").write_text("{}")
        if tables:
            rows = {"key": keys, "url": [url(name) for name in names]}
            pq.write_table(pa.table(rows), folder / f"{shard:05d}.parquet")


def parquet(folder: Path) -> None:
    rows = {"image_name": NAMES, "bytes": [PICTURES[name] for name in NAMES]}
    pq.write_table(pa.table(rows), folder / "images.parquet", row_group_size=2)


def parquet_of_img2dataset(folder: Path) -> None:
    rows = {
        "key": [f"{k:09d}" for k in range(5)],
        "url": [url(name) for name in NAMES],
        "jpg": [PICTURES[name] for name in NAMES],
    }
    pq.write_table(pa.table(rows), folder / "00000.parquet")


def parquet_of_datasets(folder: Path) -> None:
    cells = [{"bytes": PICTURES[name], "path": name} for name in NAMES]
    pq.write_table(pa.table({"name": NAMES, "image": cells}), folder / "train.parquet")


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "tars": (plain_tars, "tars"),
    "img2dataset-tars": (img2dataset_tars, "tars"),
    "img2dataset-files": (img2dataset_files, "img2dataset-files"),
    "img2dataset-files-json": (lambda f: img2dataset_files(f, tables=False), "img2dataset-files"),
    "parquet": (parquet, "parquet"),
    "img2dataset-parquet": (parquet_of_img2dataset, "parquet"),
    "datasets-parquet": (parquet_of_datasets, "parquet"),
}


def store(spec: Path | str) -> NamedImages:
    return open_images(find_images(str(spec), ()), MAX_BYTES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_found(layout: str, tmp_path: Path) -> None:
    write, kind = LAYOUTS[layout]
    write(tmp_path)
    assert find_images(str(tmp_path), ()).kind == kind
    images = store(tmp_path)
    for name, data in PICTURES.items():
        assert images.read(name, url(name)).data == data
        assert images.size(name, url(name)) == len(data)
    assert images.by_url is layout.startswith("img2dataset")
    assert images.size("gone.jpg", url("gone.jpg")) is None
    with pytest.raises(ImageRejected, match=r"missing: gone\.jpg: not in"):
        images.read("gone.jpg", url("gone.jpg"))
    assert "5 " in images.where()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["../img0.jpg", "/img0.jpg", "..\\img0.jpg", "img0.jpg\0"])
def test_names_that_lead_out_are_refused_everywhere(layout: str, name: str, tmp_path: Path) -> None:
    LAYOUTS[layout][0](tmp_path)
    images = store(tmp_path)
    with pytest.raises(ImageRejected, match="unsafe-path"):
        images.read(name, url("img0.jpg"))
    assert images.size(name, url("img0.jpg")) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_too_large_is_not_read(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout][0](tmp_path)
    images = open_images(find_images(str(tmp_path), ()), 100)
    with pytest.raises(ImageRejected, match="too-large"):
        images.read("img0.jpg", url("img0.jpg"))


@pytest.mark.parametrize("layout", ["img2dataset-tars", "img2dataset-files"])
def test_keys_of_img2dataset_are_names_too(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout][0](tmp_path)
    images = store(tmp_path)
    assert images.read("000010001.jpg").data == PICTURES["img4.jpg"]
    assert images.read("000010001").data == PICTURES["img4.jpg"]


def test_files_and_ranges_can_be_named(tmp_path: Path) -> None:
    img2dataset_tars(tmp_path)
    assert len(find_images(f"{tmp_path}/{{00000..00001}}.tar", ()).files) == 2
    assert store(tmp_path / "00001.tar").size("img0.jpg", url("img0.jpg")) is None
    with pytest.raises(UserError, match="no such folder or file"):
        find_images(str(tmp_path / "gone"), ())
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"expected a folder, \.tar files or \.parquet files"):
        find_images(str(tmp_path / "x.zip"), ())


def test_mmc4s_own_folders_are_folders(tmp_path: Path) -> None:
    for shard in ("0", "12345"):
        (tmp_path / shard).mkdir()
        (tmp_path / shard / "a.jpg").write_bytes(picture(0))
    assert find_images(str(tmp_path), ()).kind == "folder"


def damaged_tar(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[:-14_000]
    if how == "cut between members":  # the end mark is gone, and nobody knows what before it
        return data[: data.rindex(b"img1.jpg")]
    if how == "flipped":
        return data[:3] + bytes([data[3] ^ 1]) + data[4:]
    return {"empty": b"", "gzip": b"\x1f\x8b\x08" + data}[how]


@pytest.mark.parametrize("how", ["cut", "cut between members", "flipped", "empty", "gzip"])
def test_a_damaged_tar_is_named(how: str, tmp_path: Path) -> None:
    plain_tars(tmp_path)
    path = tmp_path / "a.tar"
    path.write_bytes(damaged_tar(path.read_bytes(), how))
    source = find_images(str(tmp_path), ())
    assert list(check_images(source, MAX_BYTES)) == [str(path)]
    with pytest.raises(BadInputError, match=r"a\.tar: "):
        open_images(source, MAX_BYTES)


def test_a_tar_without_images_is_no_damage_but_all_without_are_refused(tmp_path: Path) -> None:
    """img2dataset leaves an empty tar where every download of a shard failed."""
    plain_tars(tmp_path)
    write_tar(tmp_path / "c.tar", {})
    assert store(tmp_path).size("img4.jpg") is not None
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).unlink()
    with pytest.raises(BadInputError, match="there is no image in its tars"):
        store(tmp_path)


@pytest.mark.parametrize("how", ["cut", "empty", "columns"])
def test_a_damaged_parquet_is_named(how: str, tmp_path: Path) -> None:
    parquet(tmp_path)
    path = tmp_path / "images.parquet"
    data = path.read_bytes()
    if how == "columns":
        pq.write_table(pa.table({"image_name": NAMES}), path)
    else:
        path.write_bytes(data[:-100] if how == "cut" else b"")
    problems = check_images(find_images(str(tmp_path), ()), MAX_BYTES)
    assert list(problems) == [str(path)]
    assert ("expected a column" if how == "columns" else "damaged parquet") in problems[str(path)]


def test_a_null_cell_is_a_missing_image(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a", "b"], "jpg": [None, b"x"]}), tmp_path / "0.parquet")
    images = store(tmp_path)
    assert images.size("a.jpg") is None
    assert images.read("b.jpg").data == b"x"


def test_a_link_in_img2datasets_folders_does_not_lead_out(tmp_path: Path) -> None:
    img2dataset_files(tmp_path / "images")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    target = tmp_path / "images" / "00000" / "000000000.jpg"
    target.unlink()
    target.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ImageRejected, match="unsafe-path"):
        store(tmp_path / "images").read("x.jpg", url("img0.jpg"))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_link_in_a_tar_is_the_member_that_it_leads_to(form: int, tmp_path: Path) -> None:
    """Hard links, as GNU tar writes for a file of two names, and symbolic ones; in long paths."""
    deep = "deep/" * 30
    real = {"./a/1.jpg": b"1", f"./{deep}2.jpg": b"2", "./ö/3.jpg": b"3"}
    links = [
        ("./b/1.jpg", tarfile.LNKTYPE, "./a/1.jpg"),
        ("./b/2.jpg", tarfile.LNKTYPE, f"{deep}2.jpg"),
        ("./b/3.jpg", tarfile.SYMTYPE, "../ö/3.jpg"),
        ("./b/4.jpg", tarfile.SYMTYPE, "3.jpg"),
        ("./b/out.jpg", tarfile.SYMTYPE, "../../a/1.jpg"),
        ("./b/gone.jpg", tarfile.SYMTYPE, "nowhere.jpg"),
        ("./b/circle.jpg", tarfile.SYMTYPE, "circle.jpg"),
    ]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name, data in real.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    images = store(tmp_path)
    assert [images.read(f"b/{k}.jpg").data for k in (1, 2, 3, 4)] == [b"1", b"2", b"3", b"3"]
    assert images.read("b/1.jpg").note is None
    for name in ("b/out.jpg", "b/gone.jpg", "b/circle.jpg"):
        with pytest.raises(ImageRejected, match="missing"):
            images.read(name)


def test_members_without_an_ending_are_images_and_captions_are_none(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"pictures/1": b"1", "2.txt": b"2", "3.jpg": b"3"})
    images = store(tmp_path)
    assert images.read("pictures/1").data == b"1"
    assert images.size("2.txt") is None
    assert "2 images in tars" in images.where()
