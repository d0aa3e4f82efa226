"""Images one by one in a store: found, missing, too large, fetched early, never by unsafe names."""

from pathlib import Path

import pytest

from mmdata.errors import StorageError
from mmdata.images import ImageRejected
from mmdata.sources.image_objects import ImageObjects, find_objects
from schemas.reasons import ImageDrop
from tests.object_store import ObjectStore

pytestmark = pytest.mark.slow


@pytest.fixture
def images(object_store: ObjectStore, bucket: str) -> str:
    files = {"7/a.jpg": b"seven", "stem/b.jpg": b"stem", "c.jpg": b"flat", "empty.jpg": b""}
    object_store.fs.pipe({f"{bucket}/{name}": data for name, data in files.items()})
    return bucket


def objects(root: str, *, pattern: str | None = None, max_bytes: int = 100) -> ImageObjects:
    return find_objects(root, "7", "stem", pattern=pattern, max_bytes=max_bytes)


def reason(store: ImageObjects, name: str) -> ImageDrop:
    with pytest.raises(ImageRejected) as caught:
        store.read(name)
    return caught.value.reason


def test_the_folders_are_tried_in_turn(images: str) -> None:
    store = objects(images)
    assert [store.read(name).data for name in ("a.jpg", "b.jpg", "c.jpg", "empty.jpg")] == [
        b"seven",
        b"stem",
        b"flat",
        b"",
    ]
    assert [store.size(name) for name in ("a.jpg", "z.jpg", "../x")] == [5, None, None]
    assert store.where() == f"{images}/7 or {images}/stem or {images}"


def test_folders_that_are_not_there_are_not_tried(object_store: ObjectStore, bucket: str) -> None:
    object_store.fs.pipe_file(f"{bucket}/c.jpg", b"x")
    assert objects(bucket).folders == (bucket,)


def test_a_pattern_overrides_them(images: str) -> None:
    assert objects(images, pattern="{root}/{shard}/{image_name}").read("a.jpg").data == b"seven"
    assert objects(images, pattern="stem/{image_name}").read("b.jpg").data == b"stem"


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "a\0b", "..\\b"])
def test_names_are_data(images: str, name: str) -> None:
    assert reason(objects(images), name) == ImageDrop.UNSAFE_PATH


def test_what_is_missing_or_too_large_is_said_to_be_so(images: str) -> None:
    assert reason(objects(images), "z.jpg") == ImageDrop.MISSING
    assert reason(objects(images, max_bytes=4), "a.jpg") == ImageDrop.TOO_LARGE
    assert objects(images, max_bytes=5).read("a.jpg").data == b"seven"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("./a.jpg", "a.jpg"),
        ("K%C3%B6ln.jpg", "K\u00f6ln.jpg"),
        ("x/Ko\u0308ln 2.jpg", "x/K\u00f6ln 2.jpg"),
        ("x/K\u00f6ln 3.jpg", "x/Ko\u0308ln 3.jpg"),
        ("x\\1.jpg", "x/1.JPG"),
        ("x/2.jpg", "x/2.gif"),
        ("x/4.dcm", "x/4.DCM"),
    ],
)
def test_another_spelling_of_a_name_is_found(
    object_store: ObjectStore, bucket: str, name: str, found: str
) -> None:
    """By the keys that begin like it: 12.gif and 2.d/2.jpg are no 2.jpg."""
    names = ["a.jpg", "K\u00f6ln.jpg", "x/K\u00f6ln 2.jpg", "x/Ko\u0308ln 3.jpg"]
    names += ["x/1.JPG", "x/2.gif", "x/12.gif", "x/2.d/2.jpg", "x/4.DCM"]
    object_store.fs.pipe({f"{bucket}/{one}": one.encode() for one in names})
    image = objects(bucket).read(name)
    assert (image.name, image.data.decode()) == (found, found)
    assert image.note is not None


def test_two_keys_that_a_name_may_mean_are_none(object_store: ObjectStore, bucket: str) -> None:
    object_store.fs.pipe({f"{bucket}/7/a.{ending}": b"x" for ending in ("png", "gif")})
    assert reason(objects(bucket), "a.jpg") == ImageDrop.AMBIGUOUS_NAME


def test_what_is_fetched_early_is_the_same(images: str) -> None:
    store = objects(images)
    for name in ("a.jpg", "z.jpg", "a.jpg", "../x", "b.jpg"):
        store.fetch_ahead(name)
    assert store.read("a.jpg").data == b"seven"
    assert store.read("a.jpg").data == b"seven"  # asked for again, fetched again
    assert reason(store, "z.jpg") == ImageDrop.MISSING
    assert reason(store, "../x") == ImageDrop.UNSAFE_PATH


def test_what_is_never_asked_for_is_let_go_of(images: str) -> None:
    store = objects(images)
    for number in range(300):
        store.fetch_ahead(f"{number}.jpg")
    assert len(store._ahead) == 256


def test_a_store_that_is_away_is_no_missing_image(
    object_store: ObjectStore, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = objects(images)
    monkeypatch.setattr(type(object_store.fs), "retries", 1)
    monkeypatch.setattr("mmdata.storage.urls._filesystems", {})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    object_store.door.shut()
    try:
        with pytest.raises(StorageError):
            store.read("a.jpg")
    finally:
        object_store.door.open()


def test_names_are_quoted_for_the_web(tmp_path: Path) -> None:
    store = find_objects("https://host/images", "", "s", pattern=None, max_bytes=9)
    assert store._candidates("a?b#c.jpg")[0] == "https://host/images/s/a%3Fb%23c.jpg"
