"""Types of weights, gradients and optimizer state, and the loss scale."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from flamingo.models.flamingo.family import part_types
from flamingo.models.flamingo.options import Train
from flamingo.train.precision import (
    FIRST_SCALE,
    GROWTH_STEPS,
    TYPES,
    LossScale,
    fp32_matmul,
    settle,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
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


@pytest.mark.parametrize(
    ("device", "given", "before", "expected"),
    [
        (CPU, {}, None, ("fp32", None)),
        (GPU, {}, None, ("bf16-mixed", None)),
        (GPU, {"precision": "fp32"}, None, ("fp32", "high")),
        (GPU, {"precision": "fp32", "fp32_matmul": "highest"}, None, ("fp32", "highest")),
        (CPU, {"fp32_matmul": "medium"}, None, ("fp32", "medium")),
        # Runs from before there was another default, and from before there was TF32.
        (GPU, {}, {"precision": "fp32"}, ("fp32", "highest")),
        (GPU, {}, {"precision": "fp32", "fp32_matmul": "high"}, ("fp32", "high")),
        (CPU, {}, {"precision": "bf16-mixed", "fp32_matmul": None}, ("bf16-mixed", None)),
        (GPU, {"precision": "bf16"}, {"precision": "fp32"}, ("bf16", None)),
    ],
)
def test_what_options_leave_open_is_the_runs_before_or_the_devices(
    run_options: Callable[..., Train],
    device: torch.device,
    given: dict[str, Any],
    before: dict[str, Any] | None,
    expected: tuple[str, str | None],
) -> None:
    options, said = settle(run_options(**given), device, before)
    assert (options.precision, options.fp32_matmul) == expected
    unlike = {"bf16-mixed": "the default on a GPU; OpenFlamingo's is --precision fp32"}
    told = " ".join(said)
    assert ("TF32" in told) == (device is GPU and expected[1] in ("high", "medium"))
    if before is None and not given:
        assert unlike.get(expected[0], "") in told
        assert bool(told) == (device is GPU)
    if before is not None and not given:
        assert ("as this run began" in told) == ((device is GPU) == (expected[0] == "fp32"))


def test_products_of_fp32_are_as_asked_while_a_run_lasts(
    run_options: Callable[..., Train],
) -> None:
    before = torch.get_float32_matmul_precision()
    with fp32_matmul(run_options(fp32_matmul="high")):
        assert torch.get_float32_matmul_precision() == "high"
    with fp32_matmul(run_options()):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before


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
