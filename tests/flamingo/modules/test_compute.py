"""Types that parts compute in: autocast is off where all is frozen in bfloat16, and only there."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo.models.flamingo import decoder
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules import vision
from flamingo.modules.compute import InputTypeNorm, add_gated, in_stored_type
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
from tests.flamingo.modules.test_recompute import loss_of

CPU = torch.device("cpu")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
#: Of gradients, relative to their norm: a few times what one rounding to bfloat16 is off.
ROUNDING = 0.05


@pytest.mark.parametrize(
    ("weights", "trains", "compute", "is_on"),
    [
        (BF16, False, BF16, False),
        (BF16, True, BF16, True),
        (FP32, False, BF16, True),
        (FP16, False, FP16, True),
    ],
)
def test_autocast_is_off_in_what_is_frozen_in_bfloat16(
    weights: torch.dtype, trains: bool, compute: torch.dtype, is_on: bool
) -> None:
    part = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).to(weights).requires_grad_(False)
    part[1].requires_grad_(trains)
    with in_stored_type(part, CPU):  # without autocast nothing is turned on
        assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", compute):
        with in_stored_type(part, CPU):
            assert torch.is_autocast_enabled("cpu") == is_on
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_a_norm_gives_back_the_type_that_it_is_given(dtype: torch.dtype) -> None:
    norm = InputTypeNorm(16)
    nn.init.normal_(norm.weight)
    x = torch.randn(5, 16).to(dtype)
    with torch.autocast("cpu", BF16):
        found = norm(x)
    assert found.dtype == dtype
    expected = F.layer_norm(x.float(), (16,), norm.weight.to(dtype).float(), norm.bias.float())
    tolerance = 2**-8 if dtype == BF16 else 1e-6
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_a_gate_rounds_in_float32_as_a_product_and_a_sum_do() -> None:
    x, found, gate = torch.randn(3, 50, 7), torch.randn(3, 50, 7), torch.tensor([0.37])
    assert torch.equal(add_gated(x, found, gate), found * gate.tanh() + x)
    half = add_gated(x.to(BF16), found.to(BF16), gate)
    assert half.dtype == BF16
    torch.testing.assert_close(half.float(), found * gate.tanh() + x, rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        "gpt_neox",
        # Its own attention with ALiBi; powers and rotations in float32; scaled embeddings.
        *(pytest.param(one, marks=pytest.mark.matrix) for one in ("mpt", "gptj", "gemma3")),
    ],
)
def test_frozen_blocks_compute_without_autocast_and_gradients_stay_within_rounding(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed, plain = make_flamingo(family), make_flamingo(family)
    mixed.train()
    plain.train()
    for part in (mixed.vision_encoder, mixed.lang_encoder):
        part.to(BF16)
    for block in (*mixed.cross_attention_blocks, mixed.media_tokens):
        block.to(FP32)
    for one, other in zip(mixed.parameters(), plain.parameters(), strict=True):
        other.data.copy_(one)
    seen: dict[str, set[bool]] = {"frozen": set(), "trained": set()}

    def see(what: str) -> None:
        seen[what].add(torch.is_autocast_enabled("cpu"))

    mixed.vision_encoder.register_forward_pre_hook(lambda *_: see("frozen"))
    for layer in mixed.decoder_blocks:
        layer.decoder_layer.register_forward_pre_hook(lambda *_: see("frozen"))
        if layer.gated_cross_attn_layer is not None:
            layer.gated_cross_attn_layer.register_forward_pre_hook(lambda *_: see("trained"))
    found = mixed_gradients(mixed)
    assert seen == {"frozen": {False}, "trained": {True}}
    loss_of(plain).backward()
    expected = gradients(plain)
    with monkeypatch.context() as patched:
        patched.setattr(decoder, "in_stored_type", lambda *_: nullcontext())
        patched.setattr(vision, "in_stored_type", lambda *_: nullcontext())
        throughout = mixed_gradients(mixed)
    assert seen == {"frozen": {False, True}, "trained": {True}}
    off = (found - expected).norm() / expected.norm()
    assert off < max(ROUNDING, 1.5 * (throughout - expected).norm() / expected.norm())


def mixed_gradients(model: Flamingo) -> Tensor:
    with torch.autocast("cpu", BF16):
        loss = loss_of(model)
    loss.backward()
    return gradients(model)


def gradients(model: Flamingo) -> Tensor:
    """All of what trains, which is float32; the model then has none."""
    found = [one.grad for one in model.parameters() if one.grad is not None]
    assert {one.dtype for one in found} == {FP32}
    model.zero_grad()
    return torch.cat([one.flatten() for one in found])
