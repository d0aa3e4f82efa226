"""Bytes that are planned against bytes that are held: by one process, and by a rank of two."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flamingo.memory.plan import Fixed, Layout, fixed_memory, optimizer_bytes
from flamingo.models.flamingo.options import Train
from tests.flamingo.memory.rank_process import after_a_step, launch
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
from tests.flamingo.parallel.rank_process import FAMILIES, batch_of

OPTIONS = Train(lm_path="lm", run_name="run", mmc4_shards="shards")


def held(fixed: Fixed) -> dict[str, int]:
    return {
        "parameters": fixed.parameters,
        "gradients": fixed.gradients,
        "optimizer": fixed.optimizer,
        "buffers": fixed.buffers,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_one_process_holds_to_the_byte_what_is_planned(family: str) -> None:
    model = make_flamingo(family).train()
    planned = fixed_memory(model, OPTIONS, Layout())
    assert after_a_step(model, batch_of(0)) == held(planned)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types_and_what_trains_come_from_the_model(dtype: torch.dtype) -> None:
    model = make_flamingo("opt").train()
    before = fixed_memory(model, OPTIONS, Layout())
    frozen = [one for one in model.parameters() if not one.requires_grad]
    for one in frozen:
        one.data = one.data.to(dtype)
    resampler = sum(one.numel() * 4 for one in model.perceiver.parameters())
    model.perceiver.requires_grad_(False)
    planned = fixed_memory(model, OPTIONS, Layout())
    more = sum(one.numel() for one in frozen) * (dtype.itemsize - 4)
    assert planned.parameters == before.parameters + more
    assert planned.gradients == before.gradients - resampler


@pytest.fixture(scope="module")
def first_of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    return launch(tmp_path_factory.mktemp("held"))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_of_two_fsdp_ranks_holds_to_the_byte_what_is_planned(
    first_of_two: dict[str, dict[str, int]], family: str
) -> None:
    planned = fixed_memory(make_flamingo(family), OPTIONS, Layout.of("fsdp", 2, None))
    assert first_of_two[family] == held(planned)


@given(
    rows=st.integers(1, 100),
    columns=st.integers(1, 5),
    shards=st.integers(1, 16),
    hsdp=st.booleans(),
)
def test_the_first_rank_holds_as_many_rows_as_torch_chunk_gives_it(
    rows: int, columns: int, shards: int, hsdp: bool
) -> None:
    parameter = torch.empty(rows, columns, device="meta")
    layout = Layout.of("hsdp", 2 * shards, shards) if hsdp else Layout.of("fsdp", shards, None)
    assert layout.elements(parameter) == parameter.chunk(shards)[0].numel()


class TestCommunication:
    def test_none_where_every_rank_has_all(self) -> None:
        planned = fixed_memory(make_flamingo("opt"), OPTIONS, Layout.of("ddp", 8, None))
        assert planned.communication == planned.tower_communication == 0

    def test_does_not_shrink_with_more_ranks(self) -> None:
        model = make_flamingo("opt")
        two, many = (fixed_memory(model, OPTIONS, Layout.of("fsdp", n, None)) for n in (2, 64))
        assert two.communication == many.communication > 0
        assert two.parameters > many.parameters

    def test_holds_the_largest_part_twice(self) -> None:
        model = make_flamingo("gpt_neox")
        planned = fixed_memory(model, OPTIONS, Layout.of("fsdp", 2, None))
        blocks = [model.perceiver, *model.cross_attention_blocks]
        largest = max(sum(p.numel() * 4 for p in one.parameters()) for one in blocks)
        assert planned.communication >= 4 * largest  # parameters and gradients, two of each


class TestOptimizerState:
    PARAMETER = nn.Parameter(torch.empty(64, 64, device="meta"))

    @pytest.mark.parametrize(
        ("momentum", "expected"), [(0.0, 0), (0.9, 64 * 64 * 4)], ids=["plain", "momentum"]
    )
    def test_of_sgd(self, momentum: float, expected: int) -> None:
        assert optimizer_bytes("sgd", self.PARAMETER, Layout(), momentum=momentum) == expected

    def test_of_eight_bits(self) -> None:
        adam = pytest.importorskip("torchao.optim")
        for shape in ((64, 64), (4, 4), (33, 128), (64, 96)):
            parameter = nn.Parameter(torch.zeros(shape))
            optimizer = adam.AdamW8bit([parameter])
            parameter.grad = torch.zeros_like(parameter)
            with torch.compiler.set_stance("force_eager"):
                optimizer.step()
            real = sum(_bytes(value) for value in optimizer.state[parameter].values())
            assert optimizer_bytes("adamw8bit", parameter, Layout()) == real, shape


def _bytes(value: torch.Tensor) -> int:
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        return sum(_bytes(getattr(value, name)) for name in names)
    return value.numel() * value.element_size()
