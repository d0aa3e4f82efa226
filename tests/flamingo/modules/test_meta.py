"""A model built without memory equals one that was built with it."""

import copy

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from flamingo.models.flamingo.build import WholeWeights
from flamingo.modules.language_model import embedding_and_head
from flamingo.modules.meta import materialise, parameters_on_meta
from tests.flamingo.models.flamingo.parity_case import make_tower
from tests.flamingo.models.flamingo.tiny_hub import lm_config, tokenizer
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, make_flamingo, prompts, wrap


def test_it_equals_the_same_model_built_in_memory(lm_family):
    model = make_flamingo(lm_family)
    tower = copy.deepcopy(model.vision_encoder)
    with parameters_on_meta():
        lm = AutoModelForCausalLM.from_config(CONFIGS[lm_family]())
        assert all(parameter.is_meta for parameter in lm.parameters())
        twin = wrap(lm, initialise=False, tower=tower)
    ids, mask, images, counts = prompts()
    materialise(twin, "cpu")
    weights = {n: x for n, x in model.state_dict().items() if not n.startswith("vision_encoder.")}
    twin.eval().load_state_dict(weights, strict=False)
    with torch.no_grad():
        ours = twin(ids, mask, images=images, images_per_sample=counts).logits
        theirs = model(ids, mask, images=images, images_per_sample=counts).logits
    assert torch.equal(ours, theirs)
    embedding, head = embedding_and_head(twin.lang_encoder)
    assert (embedding.weight is head.weight) == twin.media_tokens.tied == model.media_tokens.tied


def test_initialise_fills_everything_of_ours_after_it():
    tower = make_tower()
    with parameters_on_meta():
        lm = AutoModelForCausalLM.from_config(CONFIGS["llama"]())
        twin = wrap(lm, initialise=False, tower=tower)
    materialise(twin, "cpu")
    twin.initialise(seed=1)
    expected = wrap(AutoModelForCausalLM.from_config(CONFIGS["llama"]()))
    values = dict(expected.named_parameters())
    for name, parameter in twin.named_parameters():
        if name.startswith(("perceiver", "media_tokens")) or "gated_cross_attn" in name:
            assert torch.equal(parameter, values[name]), name


def test_a_vocabulary_is_resized_without_memory():
    tower = make_tower()
    with parameters_on_meta():
        lm = AutoModelForCausalLM.from_config(lm_config("opt"))
        model = WholeWeights().assemble(
            tower, lm, tokenizer(), seed=0, new_token_init="normal", adapters=None
        )
        assert lm.get_input_embeddings().weight.is_meta
    materialise(model, "cpu")
    assert lm.get_input_embeddings().weight.shape[0] == 2003
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight


def test_modules_built_afterwards_are_ordinary():
    with parameters_on_meta():
        pass
    assert not nn.Linear(2, 2).weight.is_meta
