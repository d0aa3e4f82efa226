"""Images and text of a forward pass: forms that are taken, checks, blank passes, gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn

from flamingo.models.flamingo.media import EncodedMedia
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import (
    EOC,
    IMAGE,
    PAD,
    make_flamingo,
    make_lm,
    prompts,
    wrap,
)


@pytest.fixture
def model():
    return make_flamingo("gpt_neox")


def test_padded_form_equals_ragged_form(model):
    ids, mask, images, counts = prompts()
    vision_x = torch.randn(3, 5, 1, 3, 64, 64)  # whatever lies in slots without a tag
    vision_x[0, :2, 0], vision_x[1, 0, 0] = images[:2], images[2]
    ragged = model(ids, mask, images=images, images_per_sample=torch.tensor(counts)).logits
    padded = model(ids, mask, vision_x=vision_x).logits
    torch.testing.assert_close(padded, ragged, atol=1e-5, rtol=1e-5)


def test_only_real_images_are_encoded(model):
    seen = []
    model.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    ids, mask, images, _ = prompts()
    model.vision_chunk = 2
    vision_x = torch.zeros(3, 6, 1, 3, 64, 64)
    vision_x[0, :2, 0], vision_x[1, 0, 0] = images[:2], images[2]
    model(ids, mask, vision_x=vision_x)
    assert seen == [2, 1]  # three of eighteen slots, two at a time


def test_more_tags_than_images_is_an_error(model):
    ids, mask, images, _ = prompts()
    message = "sample 1 of the batch: expected an image for each of its 1 <image> tags, got 0"
    with pytest.raises(UserError, match=message):
        model(ids, mask, images=images[:2], images_per_sample=[2, 0, 0])
    with pytest.raises(UserError, match="expected an image for each of its 2 <image> tags, got 1"):
        model(ids, mask, vision_x=torch.zeros(3, 1, 1, 3, 64, 64))
    with pytest.raises(UserError, match="expected an image for each of its 2 <image> tags, got 0"):
        model.generate(ids, mask)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vision_x": torch.zeros(3, 2, 2, 3, 64, 64)}, "frames=1"),
        ({"vision_x": torch.zeros(3, 2, 3, 64, 64)}, "frames=1"),
        ({"vision_x": torch.zeros(2, 2, 1, 3, 64, 64)}, "expected 3 samples, got 2"),
        ({"images": torch.zeros(3, 3, 64, 64)}, "expected images_per_sample beside it"),
        (
            {"images": torch.zeros(3, 3, 64, 64), "images_per_sample": [2, 2, 0]},
            r"expected 3 numbers that add up to 3, got \[2, 2, 0\]",
        ),
        (
            {"images": torch.zeros(3, 3, 32, 32), "images_per_sample": [2, 1, 0]},
            r"expected \(N, 3, 64, 64\), got \(3, 3, 32, 32\)",
        ),
        (
            {"images": torch.zeros(3, 3, 64, 64).byte(), "images_per_sample": [2, 1, 0]},
            "expected normalised floating-point pixels, got torch.uint8",
        ),
        (
            {"media": EncodedMedia(latents=None, images_per_sample=(2,))},
            "media: expected 3 samples, as in input_ids, got 1",
        ),
    ],
)
def test_images_in_another_form_are_an_error(model, arguments, message):
    ids, mask, _, _ = prompts()
    with pytest.raises(UserError, match=message):
        model(ids, mask, **arguments)


def test_text_without_images_skips_attention_and_keeps_the_feed_forward(model):
    ids, mask, images, counts = prompts()
    with_others = model(ids, mask, images=images, images_per_sample=counts).logits
    alone = model(ids[2:], mask[2:]).logits
    torch.testing.assert_close(alone, with_others[2:], atol=1e-5, rtol=1e-5)
    closed = copy.deepcopy(model)
    for block in closed.cross_attention_blocks:
        block.ff_gate.data.zero_()
    assert (closed(ids[2:], mask[2:]).logits - alone).abs().max() > 1e-3


def test_a_batch_without_images_still_gives_every_parameter_a_gradient(model):
    ids, mask, _, _ = prompts()
    ids, mask = ids[2:], mask[2:]
    blank = model(ids, mask, ids, images_per_sample=[0], keep_graph=True)
    blank.loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    resampler = [p.grad.abs().max().item() for p in model.perceiver.parameters()]
    assert max(resampler) == 0
    assert torch.equal(blank.logits, model(ids, mask).logits)


def test_a_batch_without_targets_has_loss_zero(model):
    ids, mask, images, counts = prompts()
    labels = torch.full_like(ids, -100)
    for reduction in ("mean", "sum"):
        out = model(ids, mask, labels, images, counts, loss_reduction=reduction)
        assert out.loss.item() == 0
        assert out.num_targets.item() == 0


def test_sum_and_count_give_the_mean(model):
    ids, mask, images, counts = prompts()
    labels = ids.masked_fill(ids == PAD, -100)
    mean = model(ids, mask, labels, images, counts)
    total = model(ids, mask, labels, images, counts, loss_reduction="sum")
    torch.testing.assert_close(total.loss / total.num_targets, mean.loss)


def test_a_copy_is_independent(model):
    twin = copy.deepcopy(model)
    ids, mask, images, counts = prompts()
    before = model(ids, mask, images=images, images_per_sample=counts).logits
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(before, model(ids, mask, images=images, images_per_sample=counts).logits)


def test_initial_values_are_a_function_of_the_seed_alone():
    lm = make_lm("llama")
    models = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        models.append(wrap(copy.deepcopy(lm), train_output_rows=True))
    ours = [dict(model.named_parameters()) for model in models]
    for name, parameter in ours[0].items():
        if "vision_encoder" not in name:
            assert torch.equal(parameter, ours[1][name]), name
    rows = models[0].media_tokens
    assert 0.01 < rows.input_rows.std().item() < 0.03
    models[1].initialise(seed=2)
    assert not torch.equal(rows.input_rows, models[1].media_tokens.input_rows)


def test_rows_can_start_at_the_mean_of_the_lms_rows():
    model = wrap(make_lm("llama"))
    model.initialise(seed=1, new_token_init="mean", old_rows=EOC)
    mean = model.lang_encoder.get_input_embeddings().weight[:EOC].mean(dim=0)
    torch.testing.assert_close(model.media_tokens.input_rows[0], mean)
    with pytest.raises(UserError, match="expected 'normal' or 'mean', got 'zeros'"):
        model.initialise(seed=1, new_token_init="zeros")


def test_output_rows_train_only_when_asked():
    ids, mask, images, counts = prompts()
    for asked in (False, True):
        model = wrap(make_lm("llama"), train_output_rows=asked)
        model(ids, mask, ids, images, counts).loss.backward()
        assert (model.media_tokens.output_rows.grad is not None) is asked


def test_tied_rows_are_trained_once_whether_asked_or_not():
    model = wrap(make_lm("opt"), train_output_rows=True)
    assert [name for name, _ in model.media_tokens.named_parameters()] == ["input_rows"]


def test_frozen_embeddings_freeze_the_rows():
    for family in ("opt", "llama"):
        model = wrap(make_lm(family), freeze_lm_embeddings=True)
        assert not any(one.requires_grad for one in model.media_tokens.parameters())


def test_output_rows_that_are_asked_for_and_frozen_at_once_are_refused():
    with pytest.raises(UserError, match=r"--train-output-rows: .*\(tied\).* leave one of them out"):
        wrap(make_lm("opt"), freeze_lm_embeddings=True, train_output_rows=True)
    model = wrap(make_lm("llama"), freeze_lm_embeddings=True, train_output_rows=True)
    assert model.media_tokens.output_rows.requires_grad


class Adapted(nn.Module):
    """A projection with a LoRA adapter, named as peft names its parts."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.5)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        down = self.lora_A["default"](self.lora_dropout["default"](x))
        return self.base_layer(x) + self.lora_B["default"](down)


def test_lora_adapters_train_while_the_lm_stays_frozen_and_in_eval():
    lm = make_lm("llama")
    lm.requires_grad_(False)
    attention = lm.model.layers[0].self_attn
    attention.q_proj = Adapted(attention.q_proj)
    model = wrap(lm).train()
    trains = {n for n, p in model.lang_encoder.named_parameters() if p.requires_grad}
    assert {n for n in trains if "lora_" in n} == {n for n in trains if "cross_attn" not in n}
    assert sum("lora_" in n for n in trains) == 2
    training = {n for n, module in model.lang_encoder.named_modules() if module.training}
    assert any("lora_dropout" in n for n in training)
    assert all("lora_" in n or "gated_cross_attn" in n for n in training)


def test_bfloat16_lm_with_fp32_parts_of_ours():
    model = make_flamingo("llama")
    model.lang_encoder.to(torch.bfloat16)
    for block in model.cross_attention_blocks:
        block.float()
    ids, mask, images, counts = prompts()
    out = model(ids, mask, ids, images, counts)
    out.loss.backward()
    assert out.logits.dtype == torch.bfloat16
    assert model.perceiver.latents.grad.dtype == torch.float32
    assert model.perceiver.latents.grad.abs().max() > 0


def test_autocast_runs_and_stays_close(model):
    ids, mask, images, counts = prompts()
    plain = model(ids, mask, ids, images, counts).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(ids, mask, ids, images, counts).loss
    torch.testing.assert_close(mixed, plain, atol=0.1, rtol=0.05)


def test_a_wrapped_lm_cannot_be_wrapped_again(model):
    with pytest.raises(UserError, match="has cross-attention already"):
        wrap(model.lang_encoder)


def test_no_row_for_a_media_token_is_an_error():
    with pytest.raises(UserError, match=r"expected rows for the ids \(60, 58\), got 60 rows"):
        wrap(make_lm("llama"), eoc_token_id=60, media_token_id=IMAGE)
