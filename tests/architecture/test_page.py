"""docs/architecture.md names files and folders that are there."""

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: Files and folders in backticks; capitals stand for a name that the reader chooses.
NAMED = sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py))`", PAGE)))
#: Named as what is to come.
TO_COME = {"flamingo/eval/tasks/"}
PLACES = [
    path.relative_to(ROOT).as_posix() + ("/" if path.is_dir() else "")
    for package in ("mmdata", "pipelines", "flamingo", "schemas", "tests")
    for path in (ROOT / package).rglob("*")
    if path.suffix in ("", ".py")
] + ["mmdata/", "pipelines/", "flamingo/", "schemas/"]


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_is_there(name: str) -> None:
    assert name in TO_COME or any(f"/{place}".endswith(f"/{name}") for place in PLACES)


def test_every_folder_of_the_layers_is_in_the_picture() -> None:
    picture = PAGE.split("```")[1]
    folders = [
        path.name
        for package in ("mmdata", "pipelines", "flamingo")
        for path in sorted((ROOT / package).iterdir())
        if path.is_dir() and (path / "__init__.py").exists()
    ]
    assert [name for name in folders if name not in picture] == []
