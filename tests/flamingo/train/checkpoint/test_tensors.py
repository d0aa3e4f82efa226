"""A checkpoint's tensors go back into the model, however many ranks there are and were."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flamingo.parallel.world import World
from flamingo.train.checkpoint.checkpoint import Checkpointer, RunState, restore
from flamingo.train.checkpoint.retention import SaveRule
from flamingo.train.checkpoint.tensors import tensors_of
from mmdata.errors import EXIT_REQUEUE, BadInputError, UserError
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
from tests.flamingo.train.checkpoint.checkpoint_rank import (
    ON_FOUR,
    ON_TWO,
    STEPS,
    NoTokenizer,
    Run,
    checkpoint_of,
)

CASES = ON_FOUR + ON_TWO


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What 4 and then 2 processes saw, and the folder that they left."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    command = [sys.executable, "-m", "tests.flamingo.train.checkpoint.checkpoint_rank", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {}
    for size in (4, 2):
        found |= torch.load(f"{folder}/found-{size}.pt", weights_only=True)
    return folder, found


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Tensor]]:
    """One process that never stops: its tensors after 0, 5, 10, 15 and 20 steps."""
    run, found = Run(World()), []
    for first in range(0, 5 * STEPS, STEPS):
        found.append(run.tensors())
        run.steps(first)
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-7, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.matrix
class TestOtherRanks:
    """4 -> 2 -> 1 processes, ddp -> fsdp and hsdp -> ddp and fsdp -> none."""

    @pytest.mark.parametrize(("parallel", "source", "target", "first"), CASES)
    def test_go_on_as_one_process_that_never_stopped(
        self,
        ranks: tuple[str, dict[str, Any]],
        alone: list[dict[str, Tensor]],
        parallel: str,
        source: str | None,
        target: str,
        first: int,
    ) -> None:
        _, found = ranks
        if source is not None:
            assert_same(found[f"{target} restored"], alone[first // STEPS])
        assert_same(found[f"{target} stepped"], alone[first // STEPS + 1])

    @pytest.mark.parametrize("source", ["ddp2", "fsdp2"])
    def test_leave_what_one_process_goes_on_from(
        self, ranks: tuple[str, dict[str, Any]], alone: list[dict[str, Tensor]], source: str
    ) -> None:
        run = Run(World())
        restore(checkpoint_of(ranks[0], source, 3 * STEPS), run.model, run.optimizer)
        assert_same(run.tensors(), alone[3])
        run.steps(3 * STEPS)
        assert_same(run.tensors(), alone[4])

    def test_write_each_a_part(self, ranks: tuple[str, dict[str, Any]]) -> None:
        names = os.listdir(Path(checkpoint_of(ranks[0], "fsdp4", 2 * STEPS)) / "tensors")
        assert len([name for name in names if name.endswith(".distcp")]) == 4

    def test_of_ddp_are_copied_and_written_by_the_first_rank_of_each_host(
        self, ranks: tuple[str, dict[str, Any]]
    ) -> None:
        folder = Path(checkpoint_of(ranks[0], "ddp4", STEPS)) / "tensors"
        first, second, third, fourth = (
            (folder / f"__{rank}_0.distcp").stat().st_size for rank in range(4)
        )
        only_random = 2 * torch.get_rng_state().numel()
        assert max(second, fourth) < only_random < min(first, third)

    def test_stop_together_when_one_of_them_gets_a_signal(
        self, ranks: tuple[str, dict[str, Any]]
    ) -> None:
        assert ranks[1]["agreed by 4"] == [EXIT_REQUEUE] * 4


class TestRestore:
    def test_brings_back_rows_that_are_frozen(self, tmp_path: Path) -> None:
        model = make_flamingo("gpt_neox", freeze_lm_embeddings=True, train_output_rows=False)
        with torch.no_grad():
            model.media_tokens.input_rows.fill_(0.5)
        folder = save(tmp_path, model)
        other = make_flamingo("gpt_neox", freeze_lm_embeddings=True, train_output_rows=False)
        restore(folder, other, optimizer_of(other))
        assert (other.media_tokens.input_rows == 0.5).all()

    def test_brings_back_the_random_state(self, tmp_path: Path) -> None:
        model = make_flamingo("opt")
        torch.manual_seed(5)
        folder = save(tmp_path, model)
        expected = torch.rand(3)
        torch.manual_seed(6)
        restore(folder, model, optimizer_of(model))
        assert torch.equal(torch.rand(3), expected)

    def test_refuses_other_parameters_that_train(self, tmp_path: Path) -> None:
        folder = save(tmp_path, make_flamingo("opt"))
        frozen = make_flamingo("opt", freeze_lm_embeddings=True)
        expected = "trained parameters: .* has besides media_tokens.input_rows; go on with"
        with pytest.raises(UserError, match=expected):
            restore(folder, frozen, optimizer_of(frozen))

    def test_refuses_another_model_and_names_what_differs(self, tmp_path: Path) -> None:
        folder = save(tmp_path, make_flamingo("opt"))
        other = make_flamingo("opt", cross_attn_every_n_layers=1)
        expected = r"parts of the model: expected \d+, got \d+: lacks lang_encoder\S+, "
        with pytest.raises(UserError, match=expected) as refused:
            restore(folder, other, optimizer_of(other))
        assert "\n" not in str(refused.value)

    def test_says_which_file_is_damaged(self, tmp_path: Path) -> None:
        model = make_flamingo("opt")
        folder = save(tmp_path, model)
        part = Path(folder) / "tensors" / "__0_0.distcp"
        part.write_bytes(part.read_bytes()[:1000])
        with pytest.raises(BadInputError, match=f"{folder}: cannot be read: "):
            restore(folder, model, optimizer_of(model))

    def test_refuses_a_checkpoint_without_tensors(self, tmp_path: Path) -> None:
        model = make_flamingo("opt")
        with pytest.raises(UserError, match=r"holds no tensors/.*--init-from"):
            restore(str(tmp_path), model, optimizer_of(model))


class TestSlots:
    def test_of_momentum_alone_come_back(self, tmp_path: Path) -> None:
        model = make_flamingo("opt")
        optimizer = torch.optim.SGD(trained(model), lr=0.1, momentum=0.9)
        for parameter in trained(model):
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        before = tensors_of(model, optimizer, World())
        folder = save(tmp_path, model, optimizer)
        other = torch.optim.SGD(trained(model), lr=0.1, momentum=0.9)
        restore(folder, model, other)
        after = tensors_of(model, other, World())
        momenta = [name for name in before if name.endswith(".momentum_buffer")]
        assert len(momenta) == len(trained(model))
        assert all(torch.equal(after[name], before[name]) for name in momenta)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained(model))


def save(folder: Path, model: Any, optimizer: torch.optim.Optimizer | None = None) -> str:
    saver = Checkpointer(str(folder), NoTokenizer(), SaveRule())
    saver.save(model, optimizer or optimizer_of(model), RunState(step=1))
    return str(saver.close())
