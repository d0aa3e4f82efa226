"""What a person types becomes the files that are meant, and what is missing is named."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.storage.paths import expand_braces, expand_paths, natural_key

SUFFIXES = (".jsonl", ".jsonl.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "d_10.jsonl",
        "d_2.jsonl",
        "d_1.jsonl.zip",
        ".hidden.jsonl",
        "notes.txt",
        "[x].jsonl",
    ):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def found(folder: Path, *specs: str) -> list[str]:
    expansion = expand_paths([str(folder / spec) for spec in specs], SUFFIXES)
    assert expansion.problems == []
    return [os.path.relpath(path, folder) for path in expansion.files]


def test_a_folder_stands_for_its_inputs_in_natural_order(folder: Path) -> None:
    assert found(folder, ".") == ["[x].jsonl", "d_1.jsonl.zip", "d_2.jsonl", "d_10.jsonl"]


def test_a_glob_comes_in_natural_order(folder: Path) -> None:
    assert found(folder, "d_*") == ["d_1.jsonl.zip", "d_2.jsonl", "d_10.jsonl"]
    assert found(folder, "d_?.jsonl") == ["d_2.jsonl"]


def test_braces_come_in_their_own_order(folder: Path) -> None:
    assert found(folder, "d_{10,2}.jsonl") == ["d_10.jsonl", "d_2.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder: Path) -> None:
    assert found(folder, "[x].jsonl") == ["[x].jsonl"]
    (folder / "{a,b}.jsonl").write_bytes(b"")
    assert found(folder, "{a,b}.jsonl") == ["{a,b}.jsonl"]


def test_arguments_keep_the_order_they_were_given_in(folder: Path) -> None:
    assert found(folder, "d_2.jsonl", "d_10.jsonl", "d_1.jsonl.zip") == [
        "d_2.jsonl", "d_10.jsonl", "d_1.jsonl.zip",
    ]  # fmt: skip


def test_everything_that_is_missing_is_named(folder: Path) -> None:
    (folder / "empty").mkdir()
    specs = ["d_{1..3}.jsonl", "gone.jsonl", "no*", "empty", "{5..2}"]
    problems = expand_paths([f"{folder}/{spec}" for spec in specs], SUFFIXES).problems
    assert {os.path.relpath(path, folder): problem for path, problem in problems} == {
        "d_1.jsonl": "no such file",
        "d_3.jsonl": "no such file",
        "gone.jsonl": "no such file",
        "empty": "the folder holds no .jsonl or .jsonl.zip file",
        "{5..2}": f"{folder}/{{5..2}}: the range {{5..2}} is empty or too long",
    }


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a", ["a"]),
        ("{0..2}", ["0", "1", "2"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("x{a,b}{1..2}", ["xa1", "xa2", "xb1", "xb2"]),
        ("{a,}", ["a", ""]),
        ("{one}", ["{one}"]),
        ("{one}{1,2}", ["{one}1", "{one}2"]),
        ("{}", ["{}"]),
        ("{0..0}", ["0"]),
    ],
)
def test_braces_mean_what_they_mean_in_a_shell(pattern: str, expanded: list[str]) -> None:
    assert expand_braces(pattern) == expanded
    done = subprocess.run(
        ["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [word for word in expanded if word]


@pytest.mark.parametrize("pattern", ["{3..1}", "{0..99999999}"])
def test_a_range_without_end_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is empty or too long"):
        expand_braces(pattern)


@given(st.lists(st.text(alphabet="ab019²٣_-. ", max_size=8)))
def test_any_names_have_an_order(names: list[str]) -> None:
    assert sorted(sorted(names), key=natural_key) == sorted(
        names, key=lambda n: (natural_key(n), n)
    )


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_order_as_numbers(numbers: list[int]) -> None:
    names = sorted((f"shard_{n}.jsonl" for n in numbers), key=natural_key)
    assert names == [f"shard_{n}.jsonl" for n in sorted(numbers)]


def test_a_name_that_is_not_utf8_is_named_as_that(tmp_path: Path) -> None:
    """It could not stand in a plan or manifest."""
    name = os.fsencode(str(tmp_path)) + b"/d_\xff.jsonl"
    try:
        open(name, "w").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    expansion = expand_paths([str(tmp_path)], SUFFIXES)
    assert expansion.files == []
    assert expansion.problems == [
        (f"{tmp_path}/d_\\udcff.jsonl", "its name is not UTF-8; rename it")
    ]
