"""Weight files: what is read, what is refused, and that nothing in a pickle is ever run."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.models.flamingo.build import create_model_and_transforms
from flamingo.modules.checkpoint_files import read_header, read_weights, write_record, write_weights
from mmdata.errors import BadInputError, UserError
from tests.flamingo.models.flamingo.tiny_hub import TOKENIZER, save_clip, save_lm


class Hostile:
    """Unpickled the usual way, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


#: What is in a pickle is written in three ways; the last one is no file of torch's.
WRITERS = {
    "zip": lambda content, path: torch.save(content, path),
    "before torch 1.6": lambda content, path: torch.save(
        content, path, _use_new_zipfile_serialization=False
    ),
    "plain": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Any:
    return WRITERS[request.param]


def test_the_file_that_these_tests_use_would_run(tmp_path: Path, mark: Path) -> None:
    WRITERS["plain"]({"x": Hostile(mark)}, tmp_path / "x.pt")
    pickle.loads((tmp_path / "x.pt").read_bytes())
    assert mark.is_dir()


@pytest.mark.parametrize("name", ["checkpoint.pt", "pytorch_model.bin", "weights"])
def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, mark: Path, write: Any, name: str
) -> None:
    write({"model_state_dict": {"perceiver.latents": Hostile(mark)}}, tmp_path / name)
    with pytest.raises(BadInputError) as caught:
        read_weights(tmp_path / name)
    assert str(caught.value).startswith(f"checkpoint {tmp_path / name}: ")
    assert "refused" in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's own advice is how to let it run
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInputError, match="refused"):
        read_header(tmp_path / name)
    assert not mark.exists()


def test_a_language_model_that_would_run_code_is_refused(
    tmp_path: Path, mark: Path, write: Any
) -> None:
    lm = Path(save_lm(tmp_path / "lm"))
    for file in lm.glob("*.safetensors"):
        file.unlink()
    write({"gpt_neox.embed_in.weight": Hostile(mark)}, lm / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"^language model .*refused") as caught:
        create_model_and_transforms("tiny_vit", save_clip(tmp_path), str(lm), TOKENIZER)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_vision_tower_that_would_run_code_is_refused(
    tmp_path: Path, mark: Path, write: Any
) -> None:
    save_clip(tmp_path)
    path = tmp_path / "tower.pt"
    write({"state_dict": {"visual.proj": Hostile(mark)}}, path)
    with pytest.raises(
        UserError, match=r"^vision tower tiny_vit / .*tower\.pt: .*refused"
    ) as caught:
        create_model_and_transforms("tiny_vit", str(path), save_lm(tmp_path / "lm"), TOKENIZER)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_code_in_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(BadInputError, match=r"cannot be read as weights: .*TorchScript"):
        read_weights(tmp_path / "x.pt")


def test_files_that_are_no_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadInputError, match="not a safetensors file"):
        read_header(tmp_path / "a.safetensors")
    torch.save({"model_state_dict": {"x": 3}}, tmp_path / "b.pt")
    with pytest.raises(BadInputError, match="expected a dictionary of tensors"):
        read_header(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_text("not a pickle")
    with pytest.raises(BadInputError, match="cannot be read as weights"):
        read_header(tmp_path / "c.pt")
    with pytest.raises(BadInputError, match=r"expected its identity\.json"):
        read_header(tmp_path)


def test_a_folder_says_what_its_weights_belong_to_under_either_name(tmp_path: Path) -> None:
    """`fit.json` is what versions before the seam of families wrote."""
    write_weights(tmp_path / "model.safetensors", {"x": torch.zeros(2)}, None)
    (tmp_path / "fit.json").write_text(json.dumps({"rows": 7}))
    assert read_header(tmp_path).record == {"rows": 7}
    write_record(tmp_path, {"rows": 8})
    assert (tmp_path / "identity.json").exists()
    header = read_header(tmp_path)
    assert (header.record, header.shapes) == ({"rows": 8}, {"x": (2,)})


def test_a_file_of_the_old_format_is_read(tmp_path: Path) -> None:
    weights = {"x": torch.arange(4.0)}
    WRITERS["before torch 1.6"](weights, tmp_path / "x.bin")
    assert torch.equal(read_weights(tmp_path / "x.bin")["x"], weights["x"])


def test_the_header_says_what_the_weights_belong_to(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_weights(path, {"x": torch.zeros(2, 3)}, {"rows": 7}, {"lm_path": "there"})
    header = read_header(path)
    assert header.shapes == {"x": (2, 3)}
    assert (header.record, header.parts) == ({"rows": 7}, {"lm_path": "there"})
    write_weights(path, {"x": torch.zeros(1)}, None)
    header = read_header(path)
    assert (header.record, header.parts) == (None, None)
