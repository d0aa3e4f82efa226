"""`mmdata train --estimate`: from configs alone, for ranks that are not there."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flamingo.memory.advice import LAST_LEVERS, LEVERS, advice
from flamingo.memory.estimate import GB, Estimator, budget_of, estimate, layout_of
from flamingo.memory.plan import Layout
from flamingo.models.flamingo.family import FlamingoFamily
from flamingo.models.flamingo.options import Train
from mmdata.cli.main import main
from mmdata.errors import UserError


@pytest.fixture
def configs(world: Any, tmp_path: Path) -> dict[str, str]:
    """The models' configs and the tokenizer, without a weight."""
    for name in ("lm", "clip"):
        shutil.copytree(
            getattr(world, name), tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors")
        )
    assert not list(tmp_path.rglob("*.safetensors"))
    return {"lm_path": str(tmp_path / "lm"), "vision_encoder_path": str(tmp_path / "clip")}


def options_of(configs: dict[str, str], **changes: Any) -> Train:
    given = {"run_name": "nowhere", "estimate": True, "offline": True, "device": "cpu"}
    return Train(**(configs | given | changes))


class TestCommand:
    def test_prints_and_stops_without_weights_shards_or_a_run(
        self, configs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = ["--lm-path", configs["lm_path"], "--run-name", str(tmp_path / "run"), "--offline"]
        flags += ["--vision-encoder-path", configs["vision_encoder_path"], "--estimate"]
        flags += ["--nproc-per-node", "4", "--parallel", "fsdp", "--memory-budget", "80"]
        assert main(["train", *flags]) == 0
        text = capsys.readouterr().out
        assert text.startswith("memory of a rank (4 ranks, fsdp), in GB, at its largest moment")
        for part in ("parameters", "gradients", "optimizer", "communication", "cross-attention"):
            assert f" {part}" in text, part
        assert "laion: 8 x 32 tokens, 8 images" in text
        assert "mmc4: 8 x 256 tokens, 48 images" in text
        assert text.endswith("fits 80 GB\n")
        assert not (tmp_path / "run").exists()

    def test_what_does_not_fit_is_told_with_what_to_do(self, configs: dict[str, str]) -> None:
        options = options_of(configs, memory_budget=0.1)
        text = estimate(options).text(options, budget_of(options))
        assert "does not fit 0.1 GB; cheapest first: halve --batch-size-mmc4" in text


class TestTotal:
    def test_is_the_sum_of_the_largest_moment(self, configs: dict[str, str]) -> None:
        found = estimate(options_of(configs))
        sums = {name: sum(parts.values()) for name, parts in found.moments().items()}
        assert found.total == max(sums.values())
        assert found.largest[0].startswith("mmc4")

    def test_more_ranks_share_what_is_sharded(self, configs: dict[str, str]) -> None:
        one, eight = (
            estimate(options_of(configs, parallel="fsdp", estimate_ranks=n)).largest[1]
            for n in (1, 8)
        )
        for name in ("parameters", "gradients", "optimizer"):
            assert eight[name] == pytest.approx(one[name] / 8, rel=0.02), name
        assert eight["activations: resampler"] == one["activations: resampler"]

    def test_gradients_are_there_from_the_start_where_passes_come_again(
        self, configs: dict[str, str]
    ) -> None:
        once = options_of(configs, mmc4_shards="one")
        again = options_of(configs, mmc4_shards="one", gradient_accumulation_steps=2)
        first, second = (estimate(one).largest[1] for one in (once, again))
        assert first["gradients"] < second["gradients"] == estimate(again).fixed.gradients

    def test_other_batch_sizes_of_the_same_model(self, configs: dict[str, str]) -> None:
        options = options_of(configs, mmc4_shards="one")
        estimator = Estimator(options)
        sizes = [
            estimator.estimate(options_of(configs, mmc4_shards="one", batch_size_mmc4=n)).total
            for n in (1, 2, 4)
        ]
        assert sizes == sorted(sizes)
        assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.05)


class TestRanks:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, Layout()),
            ({"estimate_ranks": 4}, Layout("ddp", 4, 1)),
            ({"nproc_per_node": "8", "nnodes": "2"}, Layout("ddp", 16, 1)),
            ({"nproc_per_node": "8", "nnodes": "2", "parallel": "hsdp"}, Layout("hsdp", 16, 8)),
            ({"estimate_ranks": 6, "parallel": "fsdp"}, Layout("fsdp", 6, 6)),
        ],
    )
    def test_are_those_of_the_options(self, given: dict[str, Any], expected: Layout) -> None:
        options = Train(lm_path="lm", run_name="run", estimate=True, **given)
        assert layout_of(options) == expected

    def test_that_depend_on_the_machine_have_to_be_said(self) -> None:
        options = Train(lm_path="lm", run_name="run", estimate=True, nproc_per_node="gpu")
        with pytest.raises(UserError, match="say it with --estimate-ranks"):
            layout_of(options)


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"estimate_ranks": 2}, "--estimate-ranks goes with --estimate"),
            ({"memory_budget": 0.0}, "--memory-budget 0: expected GB above 0"),
            ({"auto_batch_size": True, "preflight": "off"}, "tries what it takes by a preflight"),
        ],
    )
    def test_that_make_no_sense_are_refused(
        self, run_options: Callable[..., Train], given: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(UserError, match=told):
            run_options(**given)

    def test_a_budget_is_told_in_gb(self, run_options: Callable[..., Train]) -> None:
        assert budget_of(run_options(memory_budget=80)) == 80 * GB

    def test_training_without_a_stream_is_refused_as_before(self) -> None:
        with pytest.raises(UserError, match="nothing to train on"):
            Train(lm_path="lm", run_name="run")


class TestLevers:
    @pytest.mark.parametrize(
        "family",
        ["parameters", "gradients", "optimizer", "activations", "communication", "buffers"],
    )
    def test_something_can_be_done_about_every_kind(
        self, run_options: Callable[..., Train], family: str
    ) -> None:
        told = advice(run_options(), family, ranks=4)
        assert 1 <= len(told) <= 2

    def test_what_is_in_use_is_not_told_again(self, run_options: Callable[..., Train]) -> None:
        options = run_options(
            precision="bf16-mixed", gradient_checkpointing=True, batch_size_mmc4=1
        )
        told = " ".join(advice(options, "activations", ranks=1))
        assert "precision" not in told
        assert "checkpointing" not in told
        assert "halve" not in told

    def test_no_option_that_is_not_there_is_named(self) -> None:
        flags = {
            word.replace("-", "_").strip("_();")
            for lever in (*LEVERS, *FlamingoFamily.levers, *LAST_LEVERS)
            for word in lever.text.split()
            if word.startswith("--")
        }
        assert [flag for flag in flags if not hasattr(Train, flag)] == []
