"""A name means the same picture wherever pictures are: the exact one, or the only one it may mean.

The table is asked of a folder, of a folder with archives in it, of tars, of parquet files and of
img2dataset's folders; each picture's bytes are its own name.
"""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.images import ImageRejected
from mmdata.sources import folder_names
from mmdata.sources.folder_names import FolderNames
from mmdata.sources.image_store import (
    NamedImages,
    ShardImages,
    find_images,
    find_in_folders,
    forget_images,
    open_images,
)
from mmdata.sources.name_index import NameIndex
from mmdata.sources.names import Near, canonical, note_for, shown, spellings
from schemas.reasons import ImageDrop, ImageNote
from tests.mmdata.sources.test_image_store import write_tar

NFC, NFD = (unicodedata.normalize(form, "Köln 1.jpg") for form in ("NFC", "NFD"))


def in_folder(root: Path, names: Iterable[str]) -> NamedImages:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    root.mkdir(exist_ok=True)
    source = find_images(str(root), ())
    return find_in_folders(source, "", "", named=True, pattern=None, max_bytes=1000)


def in_tar(root: Path, names: Iterable[str], *, prefix: str = "") -> NamedImages:
    members = {prefix + name: name.encode() for name in ("aside/other.bmp", *names)}
    write_tar(root / "images.tar", members)
    return open_images(find_images(str(root / "images.tar"), ()), 1000)


def in_parquet(root: Path, names: Iterable[str]) -> NamedImages:
    rows = {"image_name": [*names], "bytes": [name.encode() for name in names]}
    root.mkdir(exist_ok=True)
    pq.write_table(pa.table(rows), root / "images.parquet")
    return open_images(find_images(str(root), ()), 1000)


def in_folder_and_tar(root: Path, names: Iterable[str]) -> NamedImages:
    """Every other name in the folder, the others in a tar that lies in it."""
    some, others = [*names][::2], [*names][1::2]
    in_folder(root, ["aside/nothing.txt", *some])
    in_tar(root, others, prefix="./")
    source = find_images(str(root), ())
    assert source.kind == "folder-and-archives"
    return open_images(source, 1000)


STORES = {
    "folder": in_folder,
    "tar": in_tar,
    "tar-of-dot": lambda root, names: in_tar(root, names, prefix="./"),
    "parquet": in_parquet,
    "folder-and-tar": in_folder_and_tar,
}

#: (names in the store, name in a record, name that is found, how it was found).
FOUND: list[tuple[list[str], str, str, str | None]] = [
    (["a/1.jpg", "b/1.jpg"], "a/1.jpg", "a/1.jpg", None),
    (["a/1.jpg", "x/a/1.jpg", "a/1.JPG"], "a/1.jpg", "a/1.jpg", None),
    (["a%20b.jpg", "a b.jpg"], "a%20b.jpg", "a%20b.jpg", None),
    (["a/1.jpg"], "./a/1.jpg", "a/1.jpg", "found-by-dot-parts"),
    (["a/1.jpg"], "a//1.jpg", "a/1.jpg", "found-by-dot-parts"),
    (["a/1.jpg"], "././a/./1.jpg", "a/1.jpg", "found-by-dot-parts"),
    (["a/1.jpg"], "a\\1.jpg", "a/1.jpg", "found-by-backslash"),
    (["a/1.jpg"], ".\\a\\1.jpg", "a/1.jpg", "found-by-backslash"),
    (["a/b/1.jpg"], "a/b\\1.jpg", "a/b/1.jpg", "found-by-backslash"),
    (["a b/1.jpg"], "a%20b/1.jpg", "a b/1.jpg", "found-by-percent-encoding"),
    (["a/1.jpg"], "a%2F1.jpg", "a/1.jpg", "found-by-percent-encoding"),
    (["a/1.jpg"], "a%5C1.jpg", "a/1.jpg", "found-by-percent-encoding"),
    ([NFC], "K%C3%B6ln%201.jpg", NFC, "found-by-percent-encoding"),
    (["K%C3%B6ln%201.jpg"], NFC, "K%C3%B6ln%201.jpg", "found-by-percent-encoding"),
    (["a/1.jpg"], "file:a/1.jpg", "a/1.jpg", "found-by-file-url"),
    (["a/1.jpg"], "file://a/1.jpg", "a/1.jpg", "found-by-file-url"),
    (["a/1.jpg"], "FILE://./a/1.jpg", "a/1.jpg", "found-by-file-url"),
    (["a b/1.jpg"], "file:a%20b/1.jpg", "a b/1.jpg", "found-by-file-url"),
    ([NFD], NFC, NFD, "found-by-unicode-form"),
    ([NFC], NFD, NFC, "found-by-unicode-form"),
    ([NFD], "K%C3%B6ln 1.jpg", NFD, "found-by-unicode-form"),
    (["a/1.JPG"], "a/1.jpg", "a/1.JPG", "found-by-extension-case"),
    (["a/1.jpg"], "a/1.Jpg", "a/1.jpg", "found-by-extension-case"),
    (["a/1.DCM"], "a/1.dcm", "a/1.DCM", "found-by-extension-case"),
    (["a/1.gif"], "a/1.jpg", "a/1.gif", "found-by-other-extension"),
    (["a/1.PNG"], "a\\1.jpeg", "a/1.PNG", "found-by-other-extension"),
    (["a/22.05.png"], "a/22.05.jpg", "a/22.05.png", "found-by-other-extension"),
    (["a/22.05.png", "a/22.06.png"], "a/22.05", "a/22.05.png", "found-by-other-extension"),
    (["x/a/1.jpg", "x/b/1.jpg"], "a/1.jpg", "x/a/1.jpg", "found-by-suffix"),
    (["x/y/1.jpg", "2.jpg"], "1.jpg", "x/y/1.jpg", "found-by-suffix"),
    (["x/a/1.JPG"], "./a/1.jpg", "x/a/1.JPG", "found-by-suffix"),
    (["images/1.jpg", "masks/1.png"], "1.jpg", "images/1.jpg", "found-by-suffix"),
    (["x/a/1.webp", "b/1.webp"], "a/1.jpg", "x/a/1.webp", "found-by-other-extension"),
    (["a/1.jpg", "a/1.json", "a/1.txt"], "a/1.png", "a/1.jpg", "found-by-other-extension"),
]


@pytest.mark.parametrize("kind", STORES)
def test_what_a_name_finds_and_how(kind: str, tmp_path: Path) -> None:
    for number, (names, name, found, note) in enumerate(FOUND):
        forget_images()
        store = STORES[kind](tmp_path / str(number), names)
        image = store.read(name)
        assert (image.data.decode(), image.name, image.note) == (found, found, note), (names, name)
        assert store.size(name) == len(found.encode())


#: (names in the store, name in a record, why it is left out).
DROPPED: list[tuple[list[str], str, ImageDrop]] = [
    (["b/1.jpg"], "a/1.jpg", ImageDrop.MISSING),
    (["vg/VG_100K/7.jpg"], "vg/VG_100K_2/7.jpg", ImageDrop.MISSING),
    (["1.jpg"], "a/1.jpg", ImageDrop.MISSING),
    (["xa/1.jpg"], "a/1.jpg", ImageDrop.MISSING),
    (["x1.jpg"], "1.jpg", ImageDrop.MISSING),
    (["a/1.txt", "a/1.json"], "a/1.jpg", ImageDrop.MISSING),
    (["A/1.jpg", "a/B.jpg"], "a/b.jpg", ImageDrop.MISSING),
    (["._1.jpg", "__MACOSX/2.jpg"], "2.jpg", ImageDrop.MISSING),
    (["1.jpg"], "https://example.org/1.jpg", ImageDrop.MISSING),
    (["x/1.jpg", "y/1.jpg"], "1.jpg", ImageDrop.AMBIGUOUS_NAME),
    (["x/1.jpg", "y/1.JPG"], "1.jpg", ImageDrop.AMBIGUOUS_NAME),
    (["a/1.png", "a/1.gif"], "a/1.jpg", ImageDrop.AMBIGUOUS_NAME),
    (["a/1.JPG", "a/1.Jpg"], "a/1.jpg", ImageDrop.AMBIGUOUS_NAME),
    (["a/1.png", "x/a/1.jpg"], "a/1.jpg", ImageDrop.AMBIGUOUS_NAME),
    (["x/a/1.jpg", "y/a/1.jpg", "z/a/1.jpg", "w/a/1.jpg"], "a/1.jpg", ImageDrop.AMBIGUOUS_NAME),
    ([NFC, NFD], "K%C3%B6ln%201.JPG", ImageDrop.AMBIGUOUS_NAME),
    (["secret.jpg"], "../secret.jpg", ImageDrop.UNSAFE_PATH),
    (["secret.jpg"], "..\\secret.jpg", ImageDrop.UNSAFE_PATH),
    (["secret.jpg"], "..%2Fsecret.jpg", ImageDrop.UNSAFE_PATH),
    (["secret.jpg"], "file:///secret.jpg", ImageDrop.UNSAFE_PATH),
    (["secret.jpg"], "/secret.jpg", ImageDrop.UNSAFE_PATH),
    (["secret.jpg"], "C:\\secret.jpg", ImageDrop.UNSAFE_PATH),
]


@pytest.mark.parametrize("kind", STORES)
def test_what_is_left_out_and_why(kind: str, tmp_path: Path) -> None:
    for number, (names, name, reason) in enumerate(DROPPED):
        forget_images()
        store = STORES[kind](tmp_path / str(number), names)
        with pytest.raises(ImageRejected) as caught:
            store.read(name)
        assert caught.value.reason == reason, (names, name)
        assert caught.value.detail.startswith(f"{name}: ")
        if reason == ImageDrop.AMBIGUOUS_NAME:
            first, second, *_ = sorted(names)
            assert " or " in caught.value.detail
            assert caught.value.detail.count(".") >= 2, (first, second)
            assert store.size(name) == 0
        else:
            assert store.size(name) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("/etc/passwd", 'begins with "/"'),
        ("a/../../b.jpg", 'its part "..", number 2,'),
        ("..\\b.jpg", 'its part "..", number 1, leads out of the image folder (read as ../b.jpg)'),
        ("x/%2e%2e/b.jpg", 'its part "..", number 2,'),
        ("D:\\b.jpg", 'its part "D:" is a drive'),
        ("\\\\host\\b.jpg", 'begins with "/"'),
        ("b.jpg\0.png", "holds a NUL byte"),
        ("./.", "names the folder itself"),
    ],
)
def test_the_reason_says_which_part_leads_out(name: str, part: str) -> None:
    assert part in spellings(name)[1]


def test_of_one_name_in_several_tars_the_same_picture_is_taken_and_others_are_not(
    tmp_path: Path,
) -> None:
    write_tar(tmp_path / "a.tar", {"1.jpg": b"one", "2.jpg": b"two"})
    write_tar(tmp_path / "b.tar", {"1.jpg": b"one", "2.jpg": b"2"})
    store = open_images(find_images(str(tmp_path), ()), 100)
    assert store.read("1.jpg").data == b"one"
    with pytest.raises(ImageRejected, match=r"ambiguous-name: 2\.jpg: 2 members"):
        store.read("2.jpg")


def test_a_file_of_the_folder_comes_before_a_member_of_an_archive_in_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "vg.tar", {"vg/2.jpg": b"packed", "vg/3.jpg": b"only packed"})
    store = in_folder_and_rest(tmp_path, {"vg/2.jpg": b"unpacked", "coco/1.jpg": b"coco"})
    found = {name: store.read(name).data for name in ("vg/2.jpg", "vg/3.jpg", "coco/1.jpg")}
    assert found == {
        "vg/2.jpg": b"unpacked",
        "vg/3.jpg": b"only packed",
        "coco/1.jpg": b"coco",
    }
    assert store.read("2.jpg").data == b"unpacked"  # a file and its packed form are one name
    assert "vg.tar" in store.where()


def in_folder_and_rest(root: Path, files: dict[str, bytes]) -> NamedImages:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return open_images(find_images(str(root), ()), 1000)


def test_a_table_that_holds_no_images_does_not_hide_the_folders_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "captions.parquet")
    assert find_images(str(tmp_path), ()).kind == "folder"
    pq.write_table(pa.table({"name": ["1.jpg"], "jpg": [b"x"]}), tmp_path / "images.parquet")
    source = find_images(str(tmp_path), ())
    assert source.files == (str(tmp_path / "images.parquet"),)
    assert open_images(source, 100).read("1.jpg").data == b"x"


def test_the_shards_own_folder_in_an_archive_comes_first_and_others_shards_are_not_taken(
    tmp_path: Path,
) -> None:
    members = {"images/0/a.jpg": b"0", "images/10/a.jpg": b"10", "images/0/b.jpg": b"b"}
    write_tar(tmp_path / "images.tar", members | {"c.jpg": b"c"})
    store = open_images(find_images(str(tmp_path / "images.tar"), ()), 100)
    ten = ShardImages(store, "10", "docs_shard_10")
    assert [ten.read(name).data for name in ("a.jpg", "c.jpg")] == [b"10", b"c"]
    assert ten.size("a.jpg") == 2
    with pytest.raises(ImageRejected, match=r"missing: b\.jpg"):
        ten.read("b.jpg")
    with pytest.raises(ImageRejected, match=r"missing: a\.jpg"):
        ShardImages(store, "3", "docs_shard_3").read("a.jpg")
    assert ShardImages(store, "", "docs").read("b.jpg").data == b"b"


def test_numbered_shards_do_not_look_into_each_others_folders(tmp_path: Path) -> None:
    in_folder(tmp_path, ["0/a.jpg", "3/b.png", "3/deep/c.jpg", "d.gif"])
    source = find_images(str(tmp_path), ())

    def shard(number: str) -> NamedImages:
        return find_in_folders(source, number, "s", named=True, pattern=None, max_bytes=99)

    assert [shard("3").read(name).name for name in ("b.jpg", "c.jpg", "d.jpg")] == [
        "b.png", "deep/c.jpg", "d.gif",
    ]  # fmt: skip
    for number in ("3", "10"):
        with pytest.raises(ImageRejected, match="missing"):
            shard(number).read("a.jpg")


def test_a_folder_is_listed_once_and_only_after_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = in_folder(tmp_path, [f"{k}/{k}.jpg" for k in range(20)])
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), scandir(path))[1])
    forget_images()
    assert all(store.read(f"{k}/{k}.jpg").note is None for k in range(20))
    assert listed == []
    for k in range(50):
        assert store.size(f"gone/{k}.jpg") is None
    assert len(listed) == 21


def test_of_too_many_files_only_the_names_own_place_is_looked_at(tmp_path: Path) -> None:
    """And how many are too many does not depend on what was asked before."""
    in_folder(tmp_path, ["a/1.JPG", f"b/{NFD}", "c/2.gif", "c/2.webp", "d/3.DCM", "x/deep/4.jpg"])
    names = {most: names_below(tmp_path, most) for most in (5, 6)}
    assert [names[most].too_large for most in (5, 6)] == [True, False]
    for few_or_many in names.values():
        assert few_or_many.near("a/1.jpg") == [Near("a/1.JPG", 0)]
        assert few_or_many.near(f"b/{NFC}") == [Near(f"b/{NFD}", 0)]
        assert few_or_many.near("d/3.dcm") == [Near("d/3.DCM", 0)]
        assert sorted(few_or_many.near("c/2.jpg")) == [Near("c/2.gif", 1), Near("c/2.webp", 1)]
        assert few_or_many.near("c/5.jpg") == []
    assert [names[most].near("4.jpg") for most in (5, 6)] == [[], [Near("x/deep/4.jpg", 1)]]


def names_below(root: Path, most: int) -> FolderNames:
    return FolderNames(str(root), (str(root),), deep=True, most=most)


def test_links_to_folders_are_followed_where_they_are_allowed_and_once(tmp_path: Path) -> None:
    root, outside, closed = tmp_path / "root", tmp_path / "outside", tmp_path / "closed"
    in_folder(root, ["a/1.jpg"])
    in_folder(outside, ["2.jpg"])
    in_folder(closed, ["3.jpg"])
    for name, target in (("again", root), ("out", outside), ("out2", outside), ("shut", closed)):
        (root / name).symlink_to(target)
    (outside / "back").symlink_to(outside)
    names = folder_names.FolderNames(str(root), (str(root), str(outside)), deep=True, most=100)
    assert [names.near(f"{k}.jpg") for k in (1, 2, 3)] == [
        [Near("a/1.jpg", 1)],
        [Near("out/2.jpg", 1)],
        [],
    ]


PARTS = st.sampled_from(["a", "b", "1", "2", "ö", unicodedata.normalize("NFD", "ö"), "x y"])
ENDINGS = st.sampled_from([".jpg", ".JPG", ".png", "", ".txt"])
NAMES = st.builds(
    lambda parts, ending: "/".join(parts) + ending, st.lists(PARTS, min_size=1, max_size=3), ENDINGS
)


def indexed(names: Iterable[str]) -> NameIndex:
    index = NameIndex()
    for place, name in enumerate(names):
        index.add(name, place)
    index.finish()
    return index


@given(st.lists(NAMES, unique=True, max_size=12), NAMES)
def test_a_name_is_only_ever_found_as_the_end_of_a_path(names: list[str], name: str) -> None:
    """And whatever the order of the names, the same ones are near, as many steps away."""
    near = indexed(names).near(name)
    assert {n.steps for n in indexed(reversed(names)).near(name)} == {n.steps for n in near}
    for candidate in near:
        wanted, there = (canonical(one).rpartition(".") for one in (name, candidate.name))
        ends = [(text[0] or text[2]).split("/") for text in (wanted, there)]
        assert ends[1][-len(ends[0]) :] == ends[0] or "." not in name + candidate.name
        assert (note_for(name, candidate.name) is None) == (name == candidate.name)
    every = [n for n in names if canonical(n) == canonical(name)]
    assert {n.name for n in near if n.steps == 0} >= {*every[:1]} or len(near) == 3


@given(st.text(alphabet="ab./\\\0é%2eF:", max_size=14))
def test_no_reading_of_a_name_leads_up(name: str) -> None:
    try:
        forms, _ = spellings(name)
    except ImageRejected:
        return
    for form in forms:
        assert os.path.normpath(f"/images/{form}").startswith("/images/")
        assert ".." not in form.split("/")
        assert form == "/".join(part for part in form.split("/") if part)


def test_a_name_in_a_message_is_short() -> None:
    assert shown("a/1.jpg") == "a/1.jpg"
    assert len(shown("/9j/" + "A" * 60_000)) < 100


def test_every_way_of_finding_is_a_note_of_its_own() -> None:
    notes = {note for _, _, _, note in FOUND if note}
    assert notes == {str(note) for note in ImageNote if note.startswith("found-by-")}
