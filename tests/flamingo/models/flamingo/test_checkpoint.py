"""OpenFlamingo's checkpoints in and out, and our own form."""

import pytest
import torch

from flamingo.models.flamingo.checkpoint import (
    export_openflamingo,
    load_openflamingo,
    load_trainable,
    trainable_state_dict,
)
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import (
    EOC,
    IMAGE,
    make_flamingo,
    make_lm,
    prompts,
    wrap,
)

INPUT_OF = {
    "opt": "model.decoder.embed_tokens",
    "gpt_neox": "gpt_neox.embed_in",
    "llama": "model.embed_tokens",
    "mpt": "transformer.wte",
    "gptj": "transformer.wte",
}


def logits(model):
    ids, mask, images, counts = prompts()
    with torch.no_grad():
        return model(ids, mask, images=images, images_per_sample=counts).logits


def randomised(family, **options):
    model = make_flamingo(family, **options)
    with torch.no_grad():
        for parameter in (*model.media_tokens.parameters(), *model.perceiver.parameters()):
            parameter.normal_(std=0.2)
    return model


def test_exported_names_and_shapes_are_the_references(parity, parity_model):
    exported = export_openflamingo(parity_model)
    assert {f"module.{n}" for n in exported} == set(parity.meta["checkpoint_keys"])
    for name, value in exported.items():
        if name in parity.weights:
            torch.testing.assert_close(value, parity.weights[name], atol=0, rtol=0)


def test_the_references_checkpoint_loads_with_nothing_left_over(parity):
    alias = {"lang_encoder.lm_head.weight": "lang_encoder.model.decoder.embed_tokens.weight"}
    names = [name.removeprefix("module.") for name in parity.meta["checkpoint_keys"]]
    weights = {f"module.{n}": parity.weights[alias.get(n, n)] for n in names}
    model = parity.build_model()
    model.initialise(seed=5)
    report = load_openflamingo(model, {"epoch": 0, "model_state_dict": weights})
    assert report.kept_initial == []
    exported = export_openflamingo(model)
    assert all(torch.equal(exported[n], weights[f"module.{n}"]) for n in names)


def test_export_and_load_give_the_same_model(lm_family):
    model = randomised(lm_family)
    other = wrap(make_lm(lm_family))
    other.initialise(seed=9)
    assert (logits(other) - logits(model)).abs().max() > 1e-3
    report = load_openflamingo(other, export_openflamingo(model))
    assert report.kept_initial == []
    assert torch.equal(logits(other), logits(model))


def test_our_own_form_gives_the_same_model(lm_family):
    model = randomised(lm_family)
    weights = trainable_state_dict(model)
    assert not any("decoder_layer." in name or "vision" in name for name in weights)
    other = wrap(make_lm(lm_family))
    load_trainable(other, weights)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("family", ["mpt", "gptj", "opt"])
def test_frozen_rows_are_in_the_checkpoint(family):
    """OpenFlamingo's filter loses them where the matrix has no "embed" in its name."""
    model = randomised(family, freeze_lm_embeddings=True)
    exported = export_openflamingo(model)
    matrix = exported[f"lang_encoder.{INPUT_OF[family]}.weight"]
    assert torch.equal(matrix[[EOC, IMAGE]], model.media_tokens.input_rows)
    assert "media_tokens.input_rows" in trainable_state_dict(model)


def test_an_untied_head_is_in_the_checkpoint_with_its_rows():
    model = randomised("llama")
    matrix = export_openflamingo(model)["lang_encoder.lm_head.weight"]
    assert torch.equal(matrix[[EOC, IMAGE]], model.media_tokens.output_rows)


def test_output_rows_that_the_reference_lost_stay_at_their_initial_values(caplog):
    weights = export_openflamingo(randomised("llama"))
    del weights["lang_encoder.lm_head.weight"]
    model = wrap(make_lm("llama"))
    before = model.media_tokens.output_rows.clone()
    report = load_openflamingo(model, weights)
    assert report.kept_initial == ["media_tokens.output_rows"]
    assert torch.equal(model.media_tokens.output_rows, before)
    assert "left at their initial values" in caplog.text


def test_gpt_neox_head_is_found_under_both_names():
    weights = export_openflamingo(randomised("gpt_neox"))
    assert "lang_encoder.embed_out.weight" in weights
    renamed = dict(weights)
    renamed["lang_encoder.lm_head.weight"] = renamed.pop("lang_encoder.embed_out.weight")
    results = []
    for form in (weights, renamed):
        model = wrap(make_lm("gpt_neox"))
        load_openflamingo(model, form)
        results.append(logits(model))
    assert torch.equal(*results)


def spellings(weights):
    """Names under which the same blocks were saved over the years."""
    v1, forks = {}, {}
    for name, value in weights.items():
        v1[
            name.replace("transformer.blocks", "gated_cross_attn_layers").replace(
                ".gated_cross_attn_layer.", "."
            )
            if ".gated_cross" in name
            else name
        ] = value
        if name != "lang_encoder.lm_head.weight":  # the forks' head is the embedding
            forks[name] = value
    return {"v1": v1, "forks": forks, "ddp": {f"module.{n}": v for n, v in weights.items()}}


@pytest.mark.parametrize("spelling", ["v1", "forks", "ddp"])
def test_released_spellings_load(spelling):
    model = randomised("mpt")
    weights = spellings(export_openflamingo(model))[spelling]
    other = wrap(make_lm("mpt"))
    assert load_openflamingo(other, weights).kept_initial == []
    assert torch.equal(logits(other), logits(model))


def test_v1_names_of_a_whole_model_load():
    model = randomised("llama")
    layers = "lang_encoder.model.layers"
    weights = {}
    for name, value in model.state_dict().items():
        if name.startswith("media_tokens."):
            continue
        name = name.replace("module.", "")
        if ".decoder_layer." in name:
            name = name.replace(layers, "lang_encoder.old_decoder_blocks").replace(
                ".decoder_layer.", "."
            )
        weights[name] = value
    other = wrap(make_lm("llama"))
    with torch.no_grad():
        other.lang_encoder.model.layers[0].decoder_layer.mlp.up_proj.weight.zero_()
    load_openflamingo(other, weights)
    up = model.lang_encoder.model.layers[0].decoder_layer.mlp.up_proj.weight
    assert torch.equal(other.lang_encoder.model.layers[0].decoder_layer.mlp.up_proj.weight, up)


def test_what_does_not_belong_is_one_line():
    weights = export_openflamingo(randomised("llama"))
    model = wrap(make_lm("llama"))
    with pytest.raises(
        UserError, match=r"1 names belong to no part of this model: perceiver\.extra"
    ):
        load_openflamingo(model, weights | {"perceiver.extra": torch.zeros(1)})
    short = {n: v for n, v in weights.items() if n != "perceiver.latents"}
    with pytest.raises(UserError, match=r"1 parts of this model are missing: perceiver\.latents"):
        load_openflamingo(model, short)
    message = r"perceiver.latents: expected \(64, 64\), got \(8, 64\)"
    with pytest.raises(UserError, match=message):
        load_openflamingo(model, weights | {"perceiver.latents": torch.zeros(8, 64)})


def test_contradicting_copies_are_an_error():
    weights = export_openflamingo(randomised("opt"))
    weights["lang_encoder.lm_head.weight"] = weights["lang_encoder.lm_head.weight"] + 1
    with pytest.raises(UserError, match="this LM ties them"):
        load_openflamingo(wrap(make_lm("opt")), weights)


def test_our_form_of_another_model_is_an_error():
    weights = trainable_state_dict(randomised("llama"))
    with pytest.raises(UserError, match="different: lang_encoder"):
        load_trainable(wrap(make_lm("opt")), weights)
    with pytest.raises(UserError, match="different: lang_encoder"):
        load_trainable(wrap(make_lm("llama"), cross_attn_every_n_layers=1), weights)
