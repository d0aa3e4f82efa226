"""A model built by rows equals the one built whole: two CPU ranks, every family of LMs."""

import pytest
import torch

from flamingo.model.factory import create_model_and_transforms
from tests.flamingo.model.tiny_lms import CONFIGS
from tests.flamingo.parallel.rank_process import VARIANTS, arguments, generated, logits_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_are_those_of_the_model_built_whole(two_ranks, variant):
    folder, found = two_ranks
    family, options = VARIANTS[variant]
    model, _, _ = create_model_and_transforms(**arguments(folder, family, **options))
    expected = model.state_dict()
    assert list(expected) == list(found["values"][variant])
    for name, value in expected.items():
        assert torch.equal(found["values"][variant][name], value), name


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_the_model_built_whole(two_ranks, family):
    folder, found = two_ranks
    model, _, _ = create_model_and_transforms(**arguments(folder, family))
    torch.testing.assert_close(found["logits"][family], logits_of(model), atol=1e-5, rtol=1e-5)
    if family == "opt":
        assert torch.equal(found["logits"]["generated"], generated(model))


def test_no_rank_holds_more_than_one_whole_tensor_beyond_its_shards(two_ranks):
    memory = two_ranks[1]["memory"]
    assert memory["above_shards"] <= memory["largest"]
    assert memory["left"] < 0.6 * memory["whole"]


def test_a_tower_without_weights_is_refused(two_ranks):
    assert two_ranks[1]["errors"]["tower"] == (
        "vision tower: expected pretrained weights, got none"
    )
