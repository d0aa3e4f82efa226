"""A path at which nothing is, and a name of a hub."""

from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.training_view.model_names import refuse_missing_folder


@pytest.mark.parametrize("name", ["/nonexistent", "./lm", "../lm", "~/nothing/lm", "a/b/c", "lm/"])
def test_a_path_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(UserError) as raised:
        refuse_missing_folder(f"--lm-path {name}", name)
    assert str(raised.value) == f"--lm-path {name}: no such folder"


@pytest.mark.parametrize("name", ["gpt2", "org/model", "hf-hub:org/model", "local-dir:/nothing/x"])
def test_a_name_is_left_to_the_hub(name: str) -> None:
    refuse_missing_folder("", name)


def test_a_folder_that_is_there_is_fine(tmp_path: Path) -> None:
    refuse_missing_folder("", str(tmp_path))
