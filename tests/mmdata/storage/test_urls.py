"""Which paths are in a store, which stores are known, and their errors in one line."""

import sys

import pytest

from mmdata.errors import MissingExtraError, StorageError, UserError
from mmdata.installation import how_to_install
from mmdata.storage import urls
from mmdata.storage.urls import (
    absolute,
    check_writable,
    filesystem,
    is_url,
    is_web,
    protocol_of,
    store_errors,
)


def test_a_path_with_a_protocol_is_in_a_store() -> None:
    assert is_url("s3://bucket/key")
    assert not is_url("/data/a::b")
    assert not is_url("a:b")
    assert is_web("HTTPS://host/a")
    assert not is_web("s3://bucket/http://")


@pytest.mark.parametrize(
    ("url", "name"), [("s3a://b/k", "s3"), ("gcs://b", "gs"), ("HF://d", "hf")]
)
def test_other_spellings_of_a_protocol(url: str, name: str) -> None:
    assert protocol_of(url) == name


def test_an_absolute_path_means_the_same_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert absolute("a/../b") == "/b"
    assert absolute("s3://bucket/out/") == "s3://bucket/out"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/a", "expected a path or a URL of gs, hf, http, https, s3"),
        ("file:///a", "expected a path or a URL of"),
        ("https://me:secret@host/a", "credentials belong in the environment, not in a URL"),
        ("s3://key:secret@bucket/a", "credentials belong in the environment, not in a URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        absolute(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_shards_are_not_written_to_the_web() -> None:
    check_writable("/data/out", "--output")
    check_writable("s3://bucket/out", "--output")
    with pytest.raises(UserError, match="--output hf://datasets/a: shards are written to"):
        check_writable("hf://datasets/a", "--output")


def test_a_lacking_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_filesystems", {})
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError) as caught:
        filesystem("gs://bucket/a")
    assert str(caught.value) == (
        f"gs:// needs gcsfs, which is not installed: {how_to_install('gs')}"
    )


def test_what_a_store_raises_names_the_url() -> None:
    failed = "s3://b/k: the store failed: out of order"
    with pytest.raises(StorageError, match=failed), store_errors("s3://b/k"):
        raise OSError("out of\norder")
    denied = "access denied: no; check the credentials"
    with pytest.raises(StorageError, match=denied), store_errors("s3://b/k"):
        raise PermissionError("no")


@pytest.mark.parametrize("kind", [FileNotFoundError, FileExistsError, UserError, ZeroDivisionError])
def test_what_means_something_else_stays_what_it_is(kind: type[Exception]) -> None:
    with pytest.raises(kind), store_errors("s3://b/k"):
        raise kind("x")
