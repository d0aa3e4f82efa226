"""One behaviour for twelve families of language models, found by structure."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.loss import find_target_positions
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import (
    EOC,
    IMAGE,
    LAYERS,
    PAD,
    make_flamingo,
    make_lm,
    open_gates,
    prompts,
    wrap,
)

STEPS = 5


def step_by_step(model: Flamingo, steps: int) -> tuple[Tensor, Tensor]:
    """Greedy ids and scores by one whole forward pass per token, each prompt alone, unpadded."""
    ids, mask, images, counts = prompts()
    rows, scores = [], []
    for b, (sample, own) in enumerate(zip(ids, mask.bool(), strict=True)):
        text = sample[own].unsqueeze(0)
        pictures = images.split(counts)[b]
        found = []
        for _ in range(steps):
            media = model.encode(pictures, [len(pictures)])
            logits = model(text, media=media).logits[:, -1]
            logits[:, [EOC, IMAGE]] = -torch.inf
            found.append(logits)
            text = torch.cat([text, logits.argmax(-1, keepdim=True)], dim=1)
        rows.append(text[:, -steps:])
        scores.append(torch.cat(found))
    return torch.cat(rows), torch.stack(scores)


def test_closed_gates_change_nothing(lm_family):
    ids, mask, images, counts = prompts()
    lm = make_lm(lm_family)
    model = wrap(copy.deepcopy(lm))
    with torch.no_grad():  # the rows of the plain model, as ours start from other values
        rows = model.media_tokens
        rows.input_rows.copy_(lm.get_input_embeddings().weight[[EOC, IMAGE]])
        if rows.output_rows is not None:
            rows.output_rows.copy_(lm.get_output_embeddings().weight[[EOC, IMAGE]])
        plain = lm(input_ids=ids, attention_mask=mask, use_cache=False).logits
        ours = model(ids, mask, images=images, images_per_sample=counts).logits
    plain, ours = plain[mask.bool()], ours[mask.bool()]
    # The logits of our two rows are a product of their own, which some CPUs round in another way.
    assert_close = torch.testing.assert_close
    assert_close(ours[:, [EOC, IMAGE]], plain[:, [EOC, IMAGE]], atol=1e-6, rtol=1e-6)
    others = [token for token in range(plain.shape[1]) if token not in (EOC, IMAGE)]
    assert torch.equal(ours[:, others], plain[:, others])


def test_each_text_reads_the_image_before_it_and_no_other(lm_family):
    model = make_flamingo(lm_family)
    ids, mask, images, counts = prompts()
    second = int((ids[0] == IMAGE).nonzero()[-1])
    with torch.no_grad():
        before = model(ids, mask, images=images, images_per_sample=counts).logits
        images[1] = 0  # the second image of the first prompt
        after = model(ids, mask, images=images, images_per_sample=counts).logits
    changed = (before - after).abs().amax(dim=-1)
    assert changed[0, :second].max() == 0
    assert changed[0, second:].min() > 1e-4
    assert changed[1:].max() == 0


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_equals_forward_passes_of_each_prompt_alone(lm_family, use_cache):
    model = make_flamingo(lm_family)
    ids, mask, images, counts = prompts()
    out = model.generate(
        ids,
        mask,
        images=images,
        images_per_sample=counts,
        max_new_tokens=STEPS,
        use_cache=use_cache,
        suppress_tokens=[EOC, IMAGE],
        return_dict_in_generate=True,
        output_scores=True,
    )
    with torch.no_grad():
        expected, scores = step_by_step(model, STEPS)
    assert out.sequences[:, ids.shape[1] :].tolist() == expected.tolist()
    ours = torch.stack(out.scores, dim=1)
    keep = torch.isfinite(scores)
    torch.testing.assert_close(ours[keep], scores[keep], atol=2e-4, rtol=1e-4)


def test_beams_take_their_images_along(lm_family):
    model = make_flamingo(lm_family)
    ids, mask, images, counts = prompts()
    options = {"max_new_tokens": 4, "num_beams": 3, "suppress_tokens": [EOC, IMAGE]}
    together = model.generate(ids, mask, images=images, images_per_sample=counts, **options)
    for b, (sample, own) in enumerate(zip(ids, mask.bool(), strict=True)):
        pictures = images.split(counts)[b]
        alone = model.generate(
            sample[own].unsqueeze(0), images=pictures, images_per_sample=[counts[b]], **options
        )
        assert together[b, -4:].tolist() == alone[0, -4:].tolist()


def test_only_ours_trains_and_the_rest_stays_in_eval_mode(lm_family):
    model = make_flamingo(lm_family).train()
    ids, mask, images, counts = prompts()
    out = model(ids, mask, ids.masked_fill(ids == PAD, -100), images, counts)
    out.loss.backward()
    for name, parameter in model.named_parameters():
        ours = name.startswith("perceiver.") or ".gated_cross_attn_layer." in name
        trains = ours or name == "media_tokens.input_rows"
        assert parameter.requires_grad == trains == (parameter.grad is not None), name
    training = {name for name, module in model.named_modules() if module.training}
    assert all("gated_cross_attn" in n or "perceiver" in n for n in training - {"", "media_tokens"})
    assert len(model.cross_attention_blocks) == LAYERS // 2


def test_targets_only_and_checkpointing_change_no_gradient(lm_family):
    ids, mask, images, counts = prompts()
    labels = ids.masked_fill((ids == PAD) | (ids == IMAGE), -100)
    gradients = []
    for lean in (False, True):
        model = make_flamingo(lm_family).train()
        model.set_activation_checkpointing("full" if lean else None)
        positions = find_target_positions(labels) if lean else None
        out = model(ids, mask, labels, images, counts, target_positions=positions)
        out.loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, atol=1e-6, rtol=1e-4)


def test_media_rows_train_as_in_a_whole_trainable_matrix(lm_family):
    """Also in the output logits, where the LM ties them: there lies 80% of the gradient."""
    ids, mask, _, _ = prompts()
    labels = ids.masked_fill(ids == PAD, -100)
    lm = make_lm(lm_family)
    model = wrap(copy.deepcopy(lm))
    with torch.no_grad():
        model.media_tokens.input_rows.copy_(lm.get_input_embeddings().weight[[EOC, IMAGE]])
        if model.media_tokens.output_rows is not None:
            own = lm.get_output_embeddings().weight[[EOC, IMAGE]]
            model.media_tokens.output_rows.copy_(own)
    model(ids, mask, labels, check=False).loss.backward()
    lm(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    whole = lm.get_input_embeddings().weight.grad[[EOC, IMAGE]]
    torch.testing.assert_close(model.media_tokens.input_rows.grad, whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_continued_cache_counts_the_tags_before_it(lm_family, name):
    model = make_flamingo(lm_family)
    images = torch.randn(2, 3, 64, 64)
    ids = torch.tensor([[IMAGE, 5, 6, EOC, IMAGE, 7, 8, 9]])
    media = model.encode(images, [2])
    with torch.no_grad():
        whole = model(ids, media=media).logits
        cache = DynamicCache(config=model.lang_encoder.config)
        first = model(ids[:, :6], media=media, use_cache=True, **{name: cache})
        assert first.cache is first.past_key_values is cache
        rest = model(
            ids[:, 6:],
            torch.ones_like(ids),
            media=media,
            use_cache=True,
            **{name: cache},
            preceding_tags=torch.tensor([2]),
        ).logits
    torch.testing.assert_close(rest, whole[:, 6:], atol=2e-4, rtol=1e-4)


def test_an_unknown_decoder_list_can_be_named():
    lm = make_lm("llama")
    with pytest.raises(UserError, match="expected a ModuleList of LlamaForCausalLM, got nothing"):
        wrap(lm, decoder_layers_attr_name="model.blocks")
    model = wrap(make_lm("llama"), decoder_layers_attr_name="model.layers")
    open_gates(model, 0.5)
    assert model.decoder_layers_name == "model.layers"
