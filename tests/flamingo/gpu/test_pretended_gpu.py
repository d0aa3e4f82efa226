"""The pretended GPU computes what the CPU computes, and sees what a GPU would stumble over."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from tests.flamingo.gpu import Watch, pretended_gpu

GPU = torch.device("cuda")
LARGE = 64 * 1024  # bytes, too many to be staged


def on_gpu(values: Tensor) -> Tensor:
    """There already, without a copy that counts."""
    return Watch.wrap(values)


def test_a_layer_computes_on_it_what_it_computes_on_the_cpu() -> None:
    layer, given = nn.Linear(4, 3), torch.randn(5, 4)
    expected = layer(given)
    assert not torch.cuda.is_available()
    with pretended_gpu() as watch:
        assert torch.cuda.is_available()
        found = layer.to(GPU)(given.to(GPU))
        assert found.is_cuda
        found = found.cpu()
    assert torch.equal(found, expected)
    assert not torch.cuda.is_available()
    assert watch.kernels == {"addmm": 1, "_to_copy": 3}
    assert watch.bytes["addmm"] == 4 * (4 * 3 + 3 + 5 * 4 + 5 * 3)
    assert not watch.mixed


#: What is done to a tensor of the GPU -> the counters that tell of it.
DEEDS: dict[str, tuple[Callable[[Tensor], object], dict[str, int]]] = {
    "nothing": (lambda one: one * 2 + one.sum(), {}),
    "item": (lambda one: one[0].item(), {"reads": 1}),
    "bool": (lambda one: bool((one > 0).all()), {"reads": 1}),
    "tolist": (lambda one: one.tolist(), {"reads": 1}),
    "cpu": (lambda one: one.cpu(), {"reads": 1}),
    "down, queued": (lambda one: one.to("cpu", non_blocking=True), {"queued": 1}),
    "down into memory that is not pinned": (
        lambda one: torch.empty(3).copy_(one, non_blocking=True),
        {"reads": 1},
    ),
    "down into pinned memory": (
        lambda one: torch.empty(3, pin_memory=True).copy_(one, non_blocking=True),
        {"queued": 1},
    ),
    "up": (lambda one: one + torch.ones(3).to(GPU), {"blocking": 1}),
    "numbers": (lambda one: one + torch.tensor([1.0, 2, 3], device="cuda"), {"blocking": 1}),
    "numbers like it": (lambda one: one.new_tensor([1.0]), {"blocking": 1}),
    "small, queued": (lambda one: torch.ones(3).to(GPU, non_blocking=True), {"queued": 1}),
    "large, queued": (
        lambda one: torch.ones(LARGE // 4).to(GPU, non_blocking=True),
        {"blocking": 1},
    ),
    "large, pinned and queued": (
        lambda one: torch.ones(LARGE // 4).pin_memory().to(GPU, non_blocking=True),
        {"queued": 1},
    ),
    "an index by a mask": (lambda one: one[one > 0], {"waits": 1}),
    "an index on the host": (lambda one: one[torch.tensor([0, 1])], {"blocking": 1}),
    "an index": (lambda one: one[on_gpu(torch.tensor([0, 1]))], {}),
    "nonzero": (lambda one: one.nonzero(), {"waits": 1}),
    "unique": (lambda one: one.unique(), {"waits": 1}),
    "synchronize": (lambda one: torch.cuda.synchronize(), {"waits": 1}),
    "an event": (lambda one: torch.cuda.Event().synchronize(), {"waits": 1}),
}


@pytest.mark.parametrize("name", DEEDS)
def test_what_makes_the_host_wait_is_counted(name: str) -> None:
    deed, expected = DEEDS[name]
    with pretended_gpu() as watch:
        deed(on_gpu(torch.tensor([1.0, -2, 3])))
        totals = watch.totals()
    told = {one: totals[one] for one in ("reads", "blocking", "waits", "queued") if totals[one]}
    assert told == expected
    for place in [*watch.reads, *watch.blocking, *watch.waits]:
        assert " at tests/flamingo/gpu/test_pretended_gpu.py:" in place


def test_an_operation_that_mixes_devices_is_refused_and_counted() -> None:
    with pretended_gpu() as watch:
        one = on_gpu(torch.ones(3))
        _ = one * torch.tensor(2.0)  # a number may lie on the host
        assert not watch.mixed
        _ = one * torch.ones(3)
    assert watch.mixed.total() == 1


def test_attention_is_one_kernel_of_a_kind() -> None:
    draw = [torch.randn(2, 3, 8, 16) for _ in range(3)]
    mask = torch.ones(8, 8).tril().bool()
    expected = F.scaled_dot_product_attention(*draw, attn_mask=mask)
    with pretended_gpu() as watch:
        query, key, value = map(on_gpu, draw)
        causal = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        masked = F.scaled_dot_product_attention(query, key, value, attn_mask=on_gpu(mask))
        half = [one.bfloat16() for one in (query, key, value)]
        F.scaled_dot_product_attention(*half)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            F.scaled_dot_product_attention(query, key, value)
        found = [one.cpu() for one in (causal, masked)]
    for one in found:
        torch.testing.assert_close(one, expected)
    assert watch.attention == {
        "efficient forward": 1,
        "masked forward": 1,
        "flash forward": 2,
    }
    assert watch.kernels["attention forward"] == 4


def test_documents_of_varying_length_attend_to_themselves() -> None:
    query, key, value = (torch.randn(8, 2, 16).bfloat16() for _ in range(3))
    ends = torch.tensor([0, 3, 8], dtype=torch.int32)
    with pretended_gpu() as watch:
        found = varlen_attn(
            *map(on_gpu, (query, key, value, ends, ends)), 5, 5, window_size=(-1, 0)
        ).cpu()
    assert watch.attention == {"varlen forward": 1}
    for rows in (slice(0, 3), slice(3, 8)):
        parts = (one[rows].transpose(0, 1).unsqueeze(0) for one in (query, key, value))
        alone = F.scaled_dot_product_attention(*parts, is_causal=True)
        assert torch.equal(found[rows], alone.squeeze(0).transpose(0, 1))


def test_tensors_without_values_count_as_those_with_them() -> None:
    counts = []
    for inner in ("cpu", "meta"):
        with pretended_gpu(Watch(inner)) as watch:
            weight, given = (on_gpu(torch.zeros(8, 8, device=inner)) for _ in range(2))
            found = F.gelu(F.linear(given, weight)) + torch.ones(8).to(GPU)
            found.sum().item()
        counts.append({name: dict(one) for name, one in watch.counters.items()})
    assert counts[0] == counts[1]
    assert counts[0]["kernels"]["gelu"] == 1
