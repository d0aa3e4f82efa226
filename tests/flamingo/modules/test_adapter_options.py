"""Options of adapters: what makes sense, and what a resume may not change."""

from typing import Any

import pytest

from flamingo.models.flamingo.options import Train
from flamingo.modules.adapter_options import check_same_adapters, settings_of
from flamingo.modules.adapter_settings import AdapterSettings
from mmdata.errors import UserError


def options(**changes: Any) -> Train:
    return Train(**{"lm_path": "lm", "run_name": "run", "mmc4_shards": "shards"} | changes)


def test_without_the_option_there_are_none() -> None:
    assert settings_of(options()) is None


def test_the_options_are_the_settings() -> None:
    given = options(
        lm_adapter="qlora",
        lora_r=4,
        lora_alpha=8.0,
        lora_dropout=0.1,
        lora_targets="q_proj,v_proj",
    )
    assert settings_of(given) == AdapterSettings(
        kind="qlora", r=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj")
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_r": 0}, "--lora-r 0: expected at least 1"),
        ({"lora_alpha": 0.0}, "--lora-alpha 0: expected more than 0"),
        ({"lora_dropout": 1.0}, "--lora-dropout 1: expected 0 to below 1"),
        (
            {"lora_targets": "q_proj,,"},
            "--lora-targets q_proj,,: expected names of layers with commas between them, or "
            "all-linear alone",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        options(lm_adapter="lora", **changes)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    "changes",
    [{"lora_r": 8}, {"lora_alpha": 16.0}, {"lora_dropout": 0.1}, {"lora_targets": "q_proj"}],
)
def test_their_options_without_adapters_are_refused(changes: dict[str, Any]) -> None:
    flag = "--" + next(iter(changes)).replace("_", "-")
    with pytest.raises(UserError, match=f"{flag} goes with --lm-adapter lora or qlora"):
        options(**changes)


def test_a_run_goes_on_with_the_adapters_that_it_has() -> None:
    check_same_adapters({"lm_adapter": "lora"}, options(lm_adapter="lora"), "step-1")
    check_same_adapters({}, options(), "step-1")  # of before there were adapters
    with pytest.raises(UserError) as refusal:
        check_same_adapters({"lm_adapter": "lora"}, options(lm_adapter="qlora"), "step-1")
    assert str(refusal.value) == (
        "checkpoint step-1: was written with --lm-adapter lora, not qlora; give the same to go "
        "on, or start another --run-name from it by --init-from"
    )
