"""What a run, a checkpoint or an export is built of."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.modules.checkpoint_files import write_weights
from flamingo.train.checkpoint.checkpoint import STATE_FILE, RunState
from flamingo.train.checkpoint.trained import find_trained, weights_of
from mmdata.errors import BadInputError, UserError

PARTS: dict[str, Any] = {
    "lm_path": "some/lm",
    "tokenizer_path": None,
    "vision_encoder_path": "ViT-L-14",
    "vision_encoder_pretrained": "openai",
    "cross_attn_every_n_layers": 2,
    "vision_tokens": "pre_norm",
}


def write_checkpoint(run: Path, name: str, step: int, **options: Any) -> Path:
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    state = RunState(step=step, options=PARTS | {"trust_remote_code": True} | options)
    (folder / STATE_FILE).write_text(json.dumps(dataclasses.asdict(state)))
    (run / "checkpoints" / "latest").write_text(f"{name}\n")
    return folder


def test_a_run_is_its_latest_checkpoint_unless_another_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "step-00000010", 10)
    write_checkpoint(tmp_path, "step-00000020", 20)
    again = write_checkpoint(tmp_path, "step-00000020.2", 20)
    last = write_checkpoint(tmp_path, "step-00000030", 30)
    (tmp_path / "checkpoints" / "best").write_text("step-00000010\n")
    found = find_trained(str(tmp_path))
    assert found is not None
    assert (found.step, found.weights) == (30, str(last))
    assert found.tokenizer == str(last / "tokenizer")
    assert find_trained(str(last)) == found
    best, of_step = find_trained(str(tmp_path), best=True), find_trained(str(tmp_path), step=20)
    assert best is not None
    assert best.step == 10
    assert of_step is not None
    assert of_step.weights == str(again)
    assert weights_of(str(tmp_path)) == str(last)


def test_a_checkpoint_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "step-00000010", 10)
    with pytest.raises(UserError, match="no checkpoint step-00000007; there are step-00000010"):
        find_trained(str(tmp_path), step=7)
    with pytest.raises(UserError, match=r"names no best checkpoint; .*--keep-best"):
        find_trained(str(tmp_path), best=True)
    assert find_trained(str(tmp_path / "nothing")) is None


def test_an_export_tells_its_parts_and_never_has_code_run(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    parts = PARTS | {"lm_path": "./lm", "step": 5, "trust_remote_code": True}
    write_weights(file, {"x": torch.zeros(1)}, {"rows": 3}, parts)
    found = find_trained(str(file))
    assert found is not None
    assert found.parts["lm_path"] == str(tmp_path / "lm")
    assert found.tokenizer == found.parts["lm_path"]
    assert (found.step, found.trust_remote_code) == (5, False)
    (tmp_path / "tokenizer").mkdir()
    beside = find_trained(str(tmp_path))
    assert beside is not None
    assert beside.tokenizer == str(tmp_path / "tokenizer")
    assert (
        beside.moved(lm_path="elsewhere", vision_encoder_path=None).parts["lm_path"] == "elsewhere"
    )
    assert weights_of(str(tmp_path)) == str(file)


def test_a_file_of_others_has_no_parts(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", {"x": torch.zeros(1)}, None)
    assert find_trained(str(tmp_path)) is None
    assert weights_of(str(tmp_path / "checkpoint.pt")) == str(tmp_path / "checkpoint.pt")
    write_weights(tmp_path / "cut.safetensors", {"x": torch.zeros(1)}, None, {"lm_path": "x"})
    with pytest.raises(BadInputError, match=r"cut\.safetensors: its header does not say \['cross_"):
        find_trained(str(tmp_path / "cut.safetensors"))
