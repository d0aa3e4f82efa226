"""Kernels are counted as what they are, and a step is modelled from them."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.gpu_meter import GPUS, H100, Meter
from benchmarks.gpu_model import Row, gates, take_step
from benchmarks.train_gpu_batches import Size
from tests.flamingo.gpu import Watch, pretended_gpu

SIZE = Size(documents=3, pairs=4, document_tokens=24, pair_tokens=12)


def metered(
    *shapes: tuple[int, ...], dtype: torch.dtype
) -> tuple[Watch, Meter, list[torch.Tensor]]:
    watch, meter = Watch("meta"), Meter()
    watch.meter = meter
    return (
        watch,
        meter,
        [Watch.wrap(torch.empty(one, dtype=dtype, device="meta")) for one in shapes],
    )


def test_a_matrix_product_takes_as_long_as_its_arithmetic_or_its_memory() -> None:
    watch, meter, (large, small) = metered((4096, 4096), (1, 4096), dtype=torch.bfloat16)
    with pretended_gpu(watch):
        _ = large @ large
        first = meter.flops
        assert first == 2 * 4096**3
        assert sum(meter.seconds(H100).values()) == pytest.approx(first / 650e12)
        _ = small @ large
    moved = 2 * (4096**2 + 2 * 4096)
    assert sum(meter.seconds(H100).values()) == pytest.approx(first / 650e12 + moved / 2.8e12)
    assert {(key.kind, key.direction): number for key, number in meter.kernels.items()} == {
        ("matmul", "forward"): 2
    }


def test_elementwise_work_and_attention_are_kinds_of_their_own() -> None:
    watch, meter, (one,) = metered((2, 4, 64, 128), dtype=torch.bfloat16)
    with pretended_gpu(watch):
        F.scaled_dot_product_attention(one, one, one, is_causal=True)
        _ = F.gelu(one).transpose(1, 2)
    kinds = {key.kind: seconds for key, seconds in meter.seconds(H100).items()}
    assert kinds == {
        "attention flash": pytest.approx(4 * one.numel() * 2 / 2.5e12),  # too small for arithmetic
        "elementwise": pytest.approx(2 * one.numel() * 2 / 2.8e12),
    }
    assert meter.flops == 4 * 2 * 4 * 64 * 64 * 128 / 2
    assert meter.num_kernels == 2


def test_a_gpu_with_faster_memory_is_faster_where_memory_is_the_limit() -> None:
    h200, a100 = GPUS["H200"], GPUS["A100"]
    assert (h200.half, h200.flash) == (H100.half, H100.flash)
    assert h200.memory / H100.memory == pytest.approx(4.8 / 3.35)
    assert a100.half / H100.half == pytest.approx(312 / 989)


def test_a_step_is_modelled_without_values() -> None:
    # Without a compiler no backward pass is seen.
    found = {name: take_step("tiny", Row(SIZE), name) for name in ("32+64", "8+8")}
    step = found["32+64"]
    assert not step.watch.mixed
    parts = {key.part for key in step.meter.kernels}
    assert parts >= {"vision tower", "resampler", "cross-attention", "decoder blocks", "head"}
    assert {key.direction for key in step.meter.kernels} >= {"forward", "optimizer"}
    assert step.needed_flops > 0
    for gpu in GPUS.values():
        assert step.step_seconds(gpu) == max(step.device_seconds(gpu), step.host_seconds)
        assert len(list(step.lines(gpu, by_part=True))) > 8
    assert [gate.name for gate in gates(found)] == [
        "modelled MFU at 32+64, H100",
        "step at 8+8, times the device's time",
    ]
