"""Counted operations are those that torch counts in a real forward and backward pass."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flamingo.data.counts import StreamCounts
from flamingo.models.flamingo.flops import count_flops
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.absent_tower import AbsentTower
from tests.flamingo.models.flamingo.tiny_lms import IMAGE, make_flamingo

SAMPLES, LENGTH = 2, 24
COUNTS = StreamCounts(
    samples=SAMPLES,
    tokens=SAMPLES * LENGTH,
    images=SAMPLES,
    encoded=SAMPLES,
    targets=SAMPLES * (LENGTH - 1),
)


def measured(model: Flamingo) -> int:
    """What torch counts, with attention done in plain products, whose backward recomputes none."""
    model.train()
    ids = torch.randint(3, 50, (SAMPLES, LENGTH))
    ids[:, 0] = IMAGE
    labels = ids.clone()
    size = model.vision_encoder.image_size
    images = torch.randn(SAMPLES, 3, *size)
    positions = (torch.arange(SAMPLES * LENGTH).view(SAMPLES, LENGTH)[:, :-1]).flatten()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            labels=labels,
            images=images,
            images_per_sample=[1] * SAMPLES,
            target_positions=positions,
            loss_reduction="sum",
        ).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "mpt", "qwen3"])
def test_what_is_counted_is_what_torch_counts(family: str) -> None:
    model = make_flamingo(family)
    counted = count_flops(model)
    assert counted is not None
    assert counted.of(COUNTS) == pytest.approx(measured(model), rel=0.02)


def test_blocks_before_all_that_trains_have_no_backward_pass() -> None:
    trained, frozen = (make_flamingo("llama", cross_attn_every_n_layers=4) for _ in range(2))
    frozen.media_tokens.requires_grad_(requires_grad=False)
    one, other = count_flops(trained), count_flops(frozen)
    assert one is not None
    assert other is not None
    assert other.token < one.token
    assert other.of(COUNTS) == pytest.approx(measured(frozen), rel=0.02)


def test_features_in_place_of_images_leave_out_the_tower_alone() -> None:
    counted = count_flops(make_flamingo("llama"))
    assert counted is not None
    without = StreamCounts(COUNTS.samples, COUNTS.tokens, COUNTS.images, COUNTS.targets, 0)
    assert counted.of(COUNTS) - counted.of(without) == SAMPLES * counted.tower


def test_a_tower_that_was_not_loaded_costs_nothing_and_the_rest_as_much() -> None:
    model = make_flamingo("llama")
    whole = count_flops(model)
    model.vision_encoder = AbsentTower("t", model.vis_dim, model.vision_encoder.grid_size)
    counted = count_flops(model)
    assert whole is not None
    assert counted == replace(whole, tower=0.0)


def test_an_lm_with_experts_is_not_guessed_at() -> None:
    model = make_flamingo("llama")
    model.lang_encoder.config.num_local_experts = 8
    assert count_flops(model) is None
