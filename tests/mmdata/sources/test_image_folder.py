"""Images are found by the layouts people have, and no name or link leads out of the folder."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.images import ImageRejected
from mmdata.sources.image_folder import ImageFolder, find_folders
from mmdata.sources.names import check_name
from schemas.reasons import ImageDrop


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "7").mkdir(parents=True)
    (folder / "7" / "a.jpg").write_bytes(b"in 7")
    (folder / "flat.jpg").write_bytes(b"flat")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def folder_of(
    root: Path, *, pattern: str | None = None, links: tuple[str, ...] = (), number: str = "7"
) -> ImageFolder:
    return find_folders(
        str(root),
        number,
        "docs_shard_7",
        named=True,
        pattern=pattern,
        allow_links_to=links,
        max_bytes=1000,
    )


def rejected(folder: ImageFolder, name: str) -> ImageRejected:
    with pytest.raises(ImageRejected) as caught:
        folder.read(name)
    assert folder.size(name) is None or caught.value.reason == ImageDrop.TOO_LARGE
    return caught.value


def test_the_shards_folder_comes_first_then_the_stems_then_the_root(root: Path) -> None:
    folder = folder_of(root)
    assert (folder.read("a.jpg").data, folder.read("flat.jpg").data) == (b"in 7", b"flat")
    (root / "docs_shard_7").mkdir()
    for name in ("a.jpg", "flat.jpg"):
        (root / "docs_shard_7" / name).write_bytes(b"stem")
    folder = folder_of(root)
    assert (folder.read("a.jpg").data, folder.read("flat.jpg").data) == (b"in 7", b"stem")
    assert folder.size("a.jpg") == 4


def test_the_only_folder_there_is_serves_an_input_without_a_number(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "a.jpg").write_bytes(b"x")
    assert find_folders(str(tmp_path), "", "docs", named=False, pattern=None, allow_links_to=(),
                        max_bytes=9).read("a.jpg").data == b"x"  # fmt: skip
    (tmp_path / "4").mkdir()
    unnamed = find_folders(
        str(tmp_path), "", "docs", named=False, pattern=None, allow_links_to=(), max_bytes=9
    )
    assert rejected(unnamed, "a.jpg").reason == ImageDrop.MISSING


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret", "7/../../secret", "7/../flat.jpg", "..", ".", "./", "./..",
     "..\\secret", "..%2fsecret", "%2e%2e/secret", "/flat.jpg", "\\\\host\\flat.jpg",
     "C:\\flat.jpg", "file:///etc/passwd", "file://../secret", "flat.jpg\0.png", "a%00", "\0"],
)  # fmt: skip
def test_a_name_that_is_a_way_out_is_unsafe(name: str, root: Path) -> None:
    assert rejected(folder_of(root), name).reason == ImageDrop.UNSAFE_PATH


@pytest.mark.parametrize(
    "name", ["", "gone.jpg", "gone/a.jpg", "flat.jpg/a.jpg", "x" * 300, "é" * 200, "图片.jpg", "7"]
)
def test_a_name_of_nothing_is_missing(name: str, root: Path) -> None:
    assert rejected(folder_of(root), name).reason == ImageDrop.MISSING


def test_a_name_may_lie_below(root: Path) -> None:
    assert folder_of(root).read("7/a.jpg").data == b"in 7"


def test_a_directory_named_like_an_image_is_missing(root: Path) -> None:
    (root / "7" / "directory.jpg").mkdir()
    assert rejected(folder_of(root), "directory.jpg").reason == ImageDrop.MISSING


def test_a_link_that_leads_out_is_unsafe_until_its_folder_is_opened(root: Path) -> None:
    (root / "7" / "link.jpg").symlink_to(root.parent / "secret")
    refused = rejected(folder_of(root), "link.jpg")
    assert refused.reason == ImageDrop.UNSAFE_PATH
    assert "--allow-symlinks-to opens a folder" in refused.detail
    opened = folder_of(root, links=(str(root.parent),))
    assert opened.read("link.jpg").data == b"secret"
    assert opened.size("link.jpg") == 6


def test_a_link_within_the_folder_is_fine(root: Path) -> None:
    (root / "7" / "link.jpg").symlink_to("../flat.jpg")
    (root / "7" / "chain.jpg").symlink_to("link.jpg")
    (root / "again").symlink_to("7")
    for name in ("link.jpg", "chain.jpg"):
        assert folder_of(root).read(name).data == b"flat"
    assert folder_of(root).read("again/a.jpg").data == b"in 7"


@pytest.mark.parametrize("name", ["dangling.jpg", "loop.jpg"])
def test_a_link_to_nothing_is_missing(name: str, root: Path) -> None:
    (root / "7" / "dangling.jpg").symlink_to("gone.jpg")
    (root / "7" / "loop.jpg").symlink_to("loop.jpg")
    assert rejected(folder_of(root), name).reason in (ImageDrop.MISSING, ImageDrop.UNREADABLE)


def test_a_folder_below_that_is_a_link_leading_out_is_unsafe(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "b.jpg").write_bytes(b"out")
    (root / "below").symlink_to(outside)
    assert rejected(folder_of(root), "below/b.jpg").reason == ImageDrop.UNSAFE_PATH
    (root / "8").symlink_to(outside)
    shard = folder_of(root, number="8")
    assert rejected(shard, "b.jpg").reason == ImageDrop.UNSAFE_PATH
    assert "--allow-symlinks-to opens a folder" in shard.where()
    assert shard.read("flat.jpg").data == b"flat"
    assert folder_of(root, number="8", links=(str(outside),)).read("b.jpg").data == b"out"


def test_a_folder_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    beside = root.parent / "images-private"
    beside.mkdir()
    (beside / "b.jpg").write_bytes(b"out")
    (root / "7" / "link.jpg").symlink_to(beside / "b.jpg")
    assert rejected(folder_of(root), "link.jpg").reason == ImageDrop.UNSAFE_PATH


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    alias = root.parent / "alias"
    alias.symlink_to(root)
    (root / "7" / "link.jpg").symlink_to("../flat.jpg")
    assert folder_of(alias).read("a.jpg").data == b"in 7"
    assert folder_of(alias).read("link.jpg").data == b"flat"


def test_what_is_no_file_is_unsafe_and_nobody_waits_for_it(root: Path) -> None:
    os.mkfifo(root / "7" / "fifo.jpg")
    assert rejected(folder_of(root), "fifo.jpg").reason == ImageDrop.UNSAFE_PATH
    (root / "7" / "device.jpg").symlink_to("/dev/zero")
    assert rejected(folder_of(root), "device.jpg").reason == ImageDrop.UNSAFE_PATH
    everything = folder_of(root, links=("/",))
    assert rejected(everything, "device.jpg").reason == ImageDrop.UNSAFE_PATH


def test_a_file_over_the_limit_is_not_read(root: Path) -> None:
    (root / "7" / "big.jpg").write_bytes(bytes(1001))
    refused = rejected(folder_of(root), "big.jpg")
    assert refused.reason == ImageDrop.TOO_LARGE
    assert refused.detail == "big.jpg: 1001 bytes, at most 1000 are taken"


def test_what_is_said_of_an_image_does_not_depend_on_where_the_folder_lies(root: Path) -> None:
    """It goes into the rejects file, whose bytes are the same everywhere."""
    (root / "7" / "link.jpg").symlink_to(root.parent / "secret")
    (root / "7" / "big.jpg").write_bytes(bytes(1001))
    os.mkfifo(root / "7" / "fifo.jpg")
    for name in ("gone.jpg", "link.jpg", "big.jpg", "fifo.jpg", "../x"):
        assert str(root.parent) not in rejected(folder_of(root), name).detail


def test_a_pattern_overrides_the_layout(root: Path) -> None:
    (root / "x-7" / "docs_shard_7").mkdir(parents=True)
    (root / "x-7" / "docs_shard_7" / "a.jpg").write_bytes(b"by pattern")
    for start in ("{root}/", ""):
        folder = folder_of(root, pattern=start + "x-{shard}/{stem}/{image_name}")
        assert folder.read("a.jpg").data == b"by pattern"
        assert rejected(folder, "flat.jpg").reason == ImageDrop.MISSING


def test_a_pattern_may_name_another_folder_outright_but_its_links_lead_no_further(
    root: Path,
) -> None:
    other = root.parent / "other" / "7"
    other.mkdir(parents=True)
    (other / "a.jpg").write_bytes(b"other")
    (other / "link.jpg").symlink_to(root.parent / "secret")
    folder = folder_of(root, pattern=f"{root.parent}/other/{{shard}}/{{image_name}}")
    assert folder.read("a.jpg").data == b"other"
    assert rejected(folder, "link.jpg").reason == ImageDrop.UNSAFE_PATH
    (root / "out").symlink_to(root.parent)
    through = folder_of(root, pattern="{root}/out/{image_name}")
    assert rejected(through, "secret").reason == ImageDrop.UNSAFE_PATH


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ESTALE])
def test_trouble_of_the_machine_is_not_the_images(
    code: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process out of descriptors would drop every image and call the run done."""
    folder = folder_of(root)

    def fail(*arguments: object, **more: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        folder.read("a.jpg")


@given(st.text(alphabet="ab./\\\0é", max_size=12))
def test_no_name_that_passes_leads_up(name: str) -> None:
    try:
        check_name(name)
    except ImageRejected:
        return
    assert os.path.normpath(f"/images/{name}").startswith("/images/")
