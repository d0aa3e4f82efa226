"""Settings of adapters: targets of each family, and their record in a checkpoint."""

import dataclasses

import pytest

from flamingo.modules.adapter_settings import DEFAULT_TARGETS, AdapterSettings, split_targets, tell
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS


def test_every_family_that_is_tested_has_default_targets() -> None:
    assert {config().model_type for config in CONFIGS.values()} == set(DEFAULT_TARGETS)


def test_an_unknown_family_needs_them_named() -> None:
    with pytest.raises(UserError) as refusal:
        AdapterSettings(kind="lora").resolved("bloom")
    assert str(refusal.value) == (
        "--lm-adapter lora: no default targets for the family bloom; name layers by "
        "--lora-targets, or --lora-targets all-linear"
    )
    named = AdapterSettings(kind="lora", targets=("query_key_value",))
    assert named.resolved("bloom") is named


def test_a_record_gives_the_settings_back_but_for_the_dropout() -> None:
    settings = AdapterSettings(kind="qlora", r=4, alpha=6.5, dropout=0.1, targets=("a", "b"))
    found = AdapterSettings.from_record({"adapters": settings.record()})
    assert found == dataclasses.replace(settings, dropout=0.0)
    assert tell(settings.record()) == "qlora r=4 alpha=6.5 on a b"


def test_the_order_of_the_targets_is_no_difference() -> None:
    first, second = (AdapterSettings(kind="lora", targets=t) for t in (("a", "b"), ("b", "a")))
    assert first.record() == second.record()


@pytest.mark.parametrize("record", [None, {}, {"adapters": None}])
def test_a_checkpoint_without_adapters_says_nothing_of_them(record: dict[str, None]) -> None:
    assert AdapterSettings.from_record(record) is None


def test_a_record_of_another_version_is_refused() -> None:
    with pytest.raises(UserError, match=r"adapters \{'kind': 'lora'\}: not of this version"):
        AdapterSettings.from_record({"adapters": {"kind": "lora"}})


def test_targets_are_split_at_commas() -> None:
    assert split_targets(None) == ()
    assert split_targets("q_proj, v_proj,q_proj") == ("q_proj", "v_proj")
    assert split_targets("all-linear") == ("all-linear",)


@pytest.mark.parametrize("text", ["", "q_proj,", "q_proj,all-linear"])
def test_empty_names_and_all_linear_beside_others_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--lora-targets {text}: expected names of layers"):
        split_targets(text)
