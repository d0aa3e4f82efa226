"""Which rows of the media tokens train: OpenFlamingo's, or more where it is asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.models.family import Before
from flamingo.models.flamingo.media_rows import with_kept_rows
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.train.checkpoint.checkpoint import read_state
from mmdata.cli.main import main
from mmdata.errors import UserError
from tests.flamingo.conftest import World

Options = Callable[..., Train]
INPUT, OUTPUT = "media_tokens.input_rows", "media_tokens.output_rows"


def command(world: World, run: Path, *more: str) -> list[str]:
    """As OpenFlamingo's README types it, but for models and shards that are on this machine."""
    return [
        "train",
        *("--lm_path", str(world.lm), "--tokenizer_path", str(world.lm)),
        *("--vision_encoder_path", str(world.clip), "--cross_attn_every_n_layers", "1"),
        *("--mmc4_shards", str(world.shards), "--batch_size_mmc4", "4"),
        *("--train_num_samples_mmc4", "4", "--num_epochs", "1", "--workers", "0", "--offline"),
        *("--run_name", str(run), "--mmc4-min-image-bytes", "0", "--device", "cpu"),
        *more,
    ]


def parts(trained: list[str]) -> set[str]:
    """A trained parameter's part of the model, rows by their own names."""
    found = set()
    for name in trained:
        if name in (INPUT, OUTPUT):
            found.add(name)
        elif name.startswith("perceiver."):
            found.add("perceiver")
        else:
            assert ".gated_cross_attn_layer." in name, name
            found.add("cross-attention")
    return found


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        ((), {INPUT}),
        pytest.param(("--freeze_lm_embeddings",), set(), marks=pytest.mark.matrix),
        pytest.param(("--train-output-rows",), {INPUT, OUTPUT}, marks=pytest.mark.matrix),
        (("--freeze_lm_embeddings", "--train-output-rows"), {OUTPUT}),
    ],
)
def test_openflamingos_flags_train_what_openflamingo_trains(
    flags: tuple[str, ...], rows: set[str], world: World, tmp_path: Path
) -> None:
    assert main(command(world, tmp_path / "run", *flags)) == 0
    state = read_state(str(tmp_path / "run" / "checkpoints" / "step-00000001"))
    assert parts(state.trained) == {"perceiver", "cross-attention"} | rows


def saved(trained: list[str], **options: Any) -> Before:
    return Before("step-1", options, trained)


def asked(**changes: Any) -> Train:
    return Train(lm_path="lm", run_name="run", mmc4_shards="shards", **changes)


def test_a_run_goes_on_with_the_rows_that_it_began_with(caplog: pytest.LogCaptureFixture) -> None:
    both, one = saved([INPUT, OUTPUT], train_output_rows=True), saved([INPUT])
    assert with_kept_rows(asked(), both).train_output_rows
    assert "train on, as when this run began" in caplog.text
    assert with_kept_rows(asked(train_output_rows=True), both).train_output_rows
    assert not with_kept_rows(asked(), one).train_output_rows
    # All of the LM trains, these rows with it: as it is asked for.
    assert not with_kept_rows(asked(freeze="none"), both).train_output_rows


def test_a_tied_run_goes_on_by_its_own_command() -> None:
    """There are no rows of the output's own, whatever was asked."""
    tied = saved([INPUT], train_output_rows=True)
    assert with_kept_rows(asked(train_output_rows=True), tied) == asked(train_output_rows=True)


@pytest.mark.parametrize(
    ("trained", "changes", "told"),
    [
        (
            [INPUT],
            {"train_output_rows": True},
            "was written without --train-output-rows; leave it out to go on",
        ),
        (
            [INPUT],
            {"freeze_lm_embeddings": True},
            "was written without --freeze-lm-embeddings; leave it out to go on",
        ),
        (["perceiver.latents"], {}, "was written with --freeze-lm-embeddings; give it to go on"),
    ],
)
def test_other_rows_than_it_began_with_are_refused(
    trained: list[str], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as refusal:
        with_kept_rows(asked(**changes), saved(trained, train_output_rows=False))
    assert "another --run-name from it by --init-from" in str(refusal.value)


def test_a_run_of_before_this_rule_trains_its_output_rows_on(
    run_options: Options, capfd: pytest.CaptureFixture[str]
) -> None:
    """Then they trained by default: the command that began such a run has no flag for them."""
    began = run_options("run", max_steps=1, train_output_rows=True, workers=0)
    goes_on = run_options("run", max_steps=2, workers=0)
    from flamingo.launch.run import train

    train(began)
    train(goes_on)
    checkpoints = Path(goes_on.run_name) / "checkpoints"
    assert OUTPUT in read_state(str(checkpoints / "step-00000002")).trained
    first, second = (read_weights(checkpoints / f"step-0000000{step}") for step in (1, 2))
    assert not torch.equal(first[OUTPUT], second[OUTPUT])
    written = json.loads((Path(goes_on.run_name) / "options.json").read_text())
    assert written["train_output_rows"] is True
