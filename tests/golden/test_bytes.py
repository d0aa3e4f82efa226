"""Every file that the commands write for the bundled samples is as it was, to the last byte.

The list is made anew by `python -m tests.golden.regenerate bytes`, whose words say when.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.sample_runs import (
    GROUPS,
    STORED,
    arithmetic,
    codecs,
    differences,
    one_thread,
    prepare,
    run,
)


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def compare(group: str, folder: Path) -> None:
    prepare(folder)
    expected, found = stored()["commands"][group], run(folder, group)
    assert {n: one["exit_code"] for n, one in found.items()} == {
        n: one["exit_code"] for n, one in expected.items()
    }
    for name, one in found.items():
        files = expected[name]["files"]
        assert sorted(one["files"]) == sorted(files), name
        other = [path for path, digest in one["files"].items() if digest != files[path]]
        assert other == [], f"{name}: files whose bytes changed"


def skip_where_codecs_differ() -> None:
    if other := differences(stored()["codecs"], codecs()):
        pytest.skip(f"bytes are stored for other versions: {other}")


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(group, marks=[pytest.mark.slow] if group == "convert-mmc4" else [])
        for group in GROUPS
        if group != "align"
    ],
)
def test_files_are_those_of_the_list(group: str, tmp_path: Path) -> None:
    skip_where_codecs_differ()
    compare(group, tmp_path)


@pytest.mark.slow
def test_files_with_similarities_are_those_of_the_list(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    skip_where_codecs_differ()
    if other := differences(stored()["arithmetic"], arithmetic(tmp_path)):
        pytest.skip(f"similarities are stored for another arithmetic: {other}")
    with one_thread():
        compare("align", tmp_path)


def test_every_group_is_in_the_list() -> None:
    """Nothing is left out of the list, and nothing in it is never run."""
    commands = stored()["commands"]
    assert {group: set(found) for group, found in commands.items()} == {
        group: set(words) for group, words in GROUPS.items()
    }
