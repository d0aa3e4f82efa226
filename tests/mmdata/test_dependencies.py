"""What is missing, or of a version known to fail, is said in one line before work begins."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

from mmdata import dependencies
from mmdata.cli.main import main
from mmdata.dependencies import REFUSED, RefusedVersions, release_of, require
from mmdata.errors import MissingExtraError, UserError

ROOT = Path(__file__).parents[2]


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """As if these versions were installed; all else as it is."""
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: versions.get(name) or real(name))


def test_an_old_transformers_is_refused_in_one_line_at_the_command_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, transformers="4.57.6")
    command = ["train", "--lm-path", "x", "--run-name", "r", "--mmc4-shards", "s"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error == (
        "mmdata: mmdata train does not work with transformers 4.57.6: it has no "
        "conversion_mapping, by which checkpoints are read: "
        "pip install 'transformers>=5.11,<5.25'\n"
    )


def test_an_old_package_of_the_base_is_refused_at_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = RefusedVersions(package="pillow", before=(99,), reason="it is old", remedy="pillow>=99")
    monkeypatch.setattr(dependencies, "REFUSED", (row,))
    assert main(["show", "/nowhere"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"mmdata: mmdata show does not work with pillow \S+: it is old: pip install 'pillow>=99'\n",
        error,
    )


def test_a_row_for_an_extra_leaves_what_does_not_need_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, torchao="0.17.0")
    require("torchao", ("torchao",), "--optimizer adamw8bit")
    with pytest.raises(UserError, match=r"--lm-adapter qlora does not work with torchao 0\.17\.0"):
        require("lora", ("torchao",), "--lm-adapter qlora")


def test_what_is_not_there_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(MissingExtraError, match=r"^a command needs no_such_module, which is not"):
        require("train", ("no_such_module",), "a command")


numbers = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple)


@given(numbers, numbers, numbers, st.sampled_from(["", "rc1", ".dev2", "+cpu", ".post1"]))
def test_a_range_of_versions_is_what_packaging_says(
    version: tuple[int, ...], since: tuple[int, ...], before: tuple[int, ...], end: str
) -> None:
    text = ".".join(map(str, version)) + end
    row = RefusedVersions(package="p", since=since, before=before, reason="", remedy="")
    assert release_of(text) == Version(text).release
    assert row.contains(text) == (since <= version < before)


def test_a_version_that_cannot_be_read_is_left_alone() -> None:
    assert not RefusedVersions(package="p", reason="", remedy="").contains("unknown")


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.package)
def test_every_remedy_is_what_the_project_asks_for_itself(row: RefusedVersions) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [extras[row.extra]] if row.extra else extras.values()
    asked = {Requirement(one) for extra in wanted for one in extra}
    assert Requirement(row.remedy) in asked
    assert not Requirement(row.remedy).specifier.contains(".".join(map(str, row.since or (0,))))
    assert row.before or row.since
