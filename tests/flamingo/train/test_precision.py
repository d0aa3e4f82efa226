"""Types of weights, gradients and optimizer state, and the loss scale."""

from collections.abc import Callable

import pytest
import torch

from flamingo.models.flamingo.family import part_types
from flamingo.models.flamingo.options import Train
from flamingo.train.precision import FIRST_SCALE, GROWTH_STEPS, TYPES, LossScale

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("precision", "freeze", "expected"),
    [
        ("fp32", "vision,lm", (FP32, FP32, FP32)),
        ("bf16-mixed", "vision,lm", (BF16, BF16, FP32)),
        ("amp_bf16", "vision,lm", (BF16, BF16, FP32)),
        ("amp_bfloat16", "vision", (FP32, BF16, FP32)),
        ("fp16-mixed", "lm", (FP16, FP32, FP32)),
        ("bf16-mixed", "none", (FP32, FP32, FP32)),
        ("bf16", "none", (BF16, BF16, BF16)),
    ],
)
def test_what_trains_is_fp32_unless_all_is_bf16(
    run_options: Callable[..., Train],
    precision: str,
    freeze: str,
    expected: tuple[torch.dtype, ...],
) -> None:
    types = part_types(freeze, TYPES[precision])
    assert (types["lm_dtype"], types["tower_dtype"], types["own_dtype"]) == expected


def test_only_fp16_has_a_scale(run_options: Callable[..., Train]) -> None:
    for precision in TYPES:
        scale = LossScale.of(run_options(precision=precision))
        scale.update(finite=False)
        expected = FIRST_SCALE / 2 if precision == "fp16-mixed" else 1.0
        assert scale.value == expected


def test_the_scale_halves_on_an_overflow_and_doubles_after_many_steps_without() -> None:
    scale = LossScale(1024.0, is_constant=False)
    for _ in range(GROWTH_STEPS - 1):
        scale.update(finite=True)
    assert scale.value == 1024.0
    scale.update(finite=True)
    assert scale.value == 2048.0
    for _ in range(GROWTH_STEPS - 1):
        scale.update(finite=True)
    scale.update(finite=False)
    assert scale.value == 1024.0
    scale.update(finite=True)
    assert (scale.value, scale.good_steps) == (1024.0, 1)


def test_a_resume_goes_on_with_the_scale() -> None:
    scale = LossScale(512.0, good_steps=7, is_constant=False)
    resumed = LossScale(FIRST_SCALE, is_constant=False)
    resumed.resume(scale.record())
    assert resumed == scale
    resumed.resume(LossScale().record())  # of a run in another precision
    assert resumed == scale
    constant = LossScale()
    constant.resume(scale.record())
    assert constant == LossScale()
