"""A model built by rows equals the one built whole: two CPU ranks, every family of LMs."""

import pytest
import torch

from flamingo.models.flamingo.build import create_model_and_transforms
from flamingo.models.flamingo.parallelize import fill_language_model, fill_tower
from flamingo.parallel.world import World
from flamingo.parallel.wrap import rows_of
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, make_flamingo, make_lm
from tests.flamingo.parallel.rank_process import VARIANTS, arguments, generated, logits_of


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_are_those_of_the_model_built_whole(two_ranks, variant):
    folder, found = two_ranks
    family, options = VARIANTS[variant]
    model, _, _ = create_model_and_transforms(**arguments(folder, family, **options))
    expected = model.state_dict()
    assert list(expected) == list(found["values"][variant])
    for name, value in expected.items():
        assert torch.equal(found["values"][variant][name], value), name


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_the_model_built_whole(two_ranks, family):
    folder, found = two_ranks
    model, _, _ = create_model_and_transforms(**arguments(folder, family))
    torch.testing.assert_close(found["logits"][family], logits_of(model), atol=1e-5, rtol=1e-5)
    if family == "opt":
        assert torch.equal(found["logits"]["generated"], generated(model))


@pytest.mark.slow
@pytest.mark.matrix
def test_no_rank_holds_more_than_one_whole_tensor_beyond_its_shards(two_ranks):
    memory = two_ranks[1]["memory"]
    assert memory["above_shards"] <= memory["largest"]
    assert memory["left"] < 0.6 * memory["whole"]


def test_a_model_that_is_whole_is_filled_too():
    model, stored = make_flamingo("gpt2"), make_lm("gpt2").state_dict()
    with torch.no_grad():
        for parameter in model.lang_encoder.parameters():
            parameter.fill_(3.0)
    del stored["lm_head.weight"]  # tied: files hold one of the two
    fill_language_model(model, stored)
    layer = model.decoder_blocks[1].decoder_layer
    assert torch.equal(layer.ln_1.weight, stored["transformer.h.1.ln_1.weight"])
    head = model.lang_encoder.get_output_embeddings()
    assert torch.equal(head.weight, stored["transformer.wte.weight"])


def test_files_that_lack_a_part_are_refused():
    stored = make_lm("llama").state_dict()
    del stored["lm_head.weight"], stored["model.norm.weight"]
    with pytest.raises(UserError) as refusal:
        fill_language_model(make_flamingo("llama"), stored)
    assert str(refusal.value) == (
        "language model LlamaForCausalLM: its weights lack 2 of 39 tensors: "
        "model.norm.weight, lm_head.weight"
    )


def test_so_are_those_of_another_shape():
    stored = make_lm("llama").state_dict()
    stored["model.norm.weight"] = torch.ones(8)
    with pytest.raises(UserError, match=r"model.norm.weight: expected \(32,\), got \(8,\)$"):
        fill_language_model(make_flamingo("llama"), stored)


def test_so_are_two_tensors_where_the_lm_has_one():
    stored = make_lm("gpt2").state_dict()
    stored["lm_head.weight"] = stored["lm_head.weight"] + 1
    with pytest.raises(UserError, match="are one tensor here, two in its files"):
        fill_language_model(make_flamingo("gpt2"), stored)


def test_a_tower_without_weights_is_refused():
    with pytest.raises(UserError, match="vision tower: expected pretrained weights, got none"):
        fill_tower(make_flamingo("gpt2"), {})


def test_a_world_without_a_mesh_is_none_to_spread_over():
    with pytest.raises(ValueError, match="expected one with a mesh, got --parallel none"):
        rows_of(World())
