"""The weights of an LM as they lie on the disk, by the names of the model."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import Concatenate, WeightConverter

from flamingo.modules import lm_files
from flamingo.modules.lm_files import find_weight_files, stored_weights
from flamingo.modules.meta import parameters_on_meta
from mmdata.errors import BadInputError
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, make_lm


def never() -> nn.Module:
    raise AssertionError("the LM was read whole")


def empty(family: str) -> nn.Module:
    with parameters_on_meta():
        return AutoModelForCausalLM.from_config(CONFIGS[family]())


def save(lm: nn.Module, folder: Path, kind: str) -> None:
    options = {"max_shard_size": "20KB"} if kind == "several safetensors" else {}
    lm.save_pretrained(folder, **options)
    if kind.endswith("pickle"):
        (folder / "model.safetensors").unlink()
        zipped = kind == "zipped pickle"
        torch.save(
            lm.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped
        )


@pytest.mark.parametrize(
    "kind", ["safetensors", "several safetensors", "zipped pickle", "old pickle"]
)
def test_every_kind_of_file_gives_the_weights(tmp_path, kind, caplog):
    lm = make_lm("gpt_neox")
    save(lm, tmp_path, kind)
    files = find_weight_files(str(tmp_path), local_files_only=True)
    assert (len(files) > 1) == (kind == "several safetensors")
    with caplog.at_level(logging.WARNING):
        found = stored_weights(empty("gpt_neox"), files, never)
    expected = lm.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert ("in the format before torch 1.6" in caplog.text) == (kind == "old pickle")


@pytest.mark.parametrize("head", ["embed_out.weight", "lm_head.weight"])
def test_gptneox_files_may_name_the_head_either_way(tmp_path, head):
    lm = make_lm("gpt_neox")
    save(lm, tmp_path, "safetensors")
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    (known,) = {"embed_out.weight", "lm_head.weight"} & set(weights)
    weights[head] = weights.pop(known).clone()
    save_file({name: x.clone() for name, x in weights.items()}, path, metadata={"format": "pt"})
    found = stored_weights(empty("gpt_neox"), [path], never)
    assert torch.equal(found["lm_head.weight"], lm.lm_head.weight)


def test_a_base_models_files_lack_its_prefix(tmp_path):
    lm = make_lm("llama")
    lm.model.save_pretrained(tmp_path)
    found = stored_weights(empty("llama"), [tmp_path / "model.safetensors"], never)
    assert torch.equal(found["model.norm.weight"], lm.model.norm.weight)


def test_an_lm_that_is_computed_from_its_files_is_read_whole_and_this_is_said(
    tmp_path, monkeypatch, caplog
):
    lm = make_lm("llama")
    save(lm, tmp_path, "safetensors")
    fused = WeightConverter(
        ["self_attn.q_proj.weight", "self_attn.k_proj.weight"],
        "self_attn.o_proj.weight",
        operations=[Concatenate(0)],
    )
    monkeypatch.setattr(lm_files, "get_model_conversion_mapping", lambda _: [fused])
    with caplog.at_level(logging.WARNING):
        found = stored_weights(empty("llama"), [tmp_path / "model.safetensors"], lambda: lm)
    assert found["lm_head.weight"].data_ptr() == lm.lm_head.weight.data_ptr()
    assert caplog.messages == [
        "LlamaForCausalLM: its parameters are made of several in the file: "
        "read whole into the memory of every rank first"
    ]


def test_so_is_one_without_any_of_the_usual_files(tmp_path, caplog):
    lm = make_lm("llama")
    assert find_weight_files(str(tmp_path), local_files_only=True) == []
    found = stored_weights(empty("llama"), [], lambda: lm)
    assert set(found) == set(lm.state_dict())
    assert "neither safetensors nor a pytorch_model.bin" in caplog.text


def test_an_index_that_names_a_file_that_is_not_there(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(BadInputError, match=r"index.json names model-1.safetensors: not there"):
        find_weight_files(str(tmp_path), local_files_only=True)


def test_an_index_that_is_none(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(BadInputError, match="expected a weight_map in it"):
        find_weight_files(str(tmp_path), local_files_only=True)
