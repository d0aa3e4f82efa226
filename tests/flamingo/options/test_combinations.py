"""What cannot be combined is refused in one line; the page shows the table; each pair of what is
left trains."""

import pytest

from flamingo.models.flamingo.options import Train
from flamingo.options.combinations import Refusal
from mmdata.errors import UserError
from tests.levers_page import ALL_REFUSALS, PAGE, refusals, with_block

REFUSED: list[tuple[dict[str, object], str]] = [
    ({"cpu_offload": "params"}, "--cpu-offload params without --parallel fsdp"),
    ({"cpu_offload": "params", "parallel": "ddp"}, "--cpu-offload params without"),
    ({"cpu_offload": "optimizer", "optimizer": "adamw8bit"}, "--cpu-offload with --optimizer"),
    ({"cpu_offload": "optimizer", "optimizer": "sgd"}, "--cpu-offload optimizer with --optimizer"),
    ({"momentum": 0.9}, "--momentum without --optimizer sgd"),
    ({"checkpoint_policy": "full"}, "--checkpoint-policy without --gradient-checkpointing"),
    (
        {"checkpoint_policy": "selective", "gradient_checkpointing": True, "compile": True},
        "--checkpoint-policy selective with --compile",
    ),
    ({"lm_adapter": "lora", "freeze": "vision"}, "--lm-adapter with an LM that --freeze lets"),
    (
        {"lm_adapter": "qlora", "cpu_offload": "params", "parallel": "fsdp"},
        "--cpu-offload params with --lm-adapter qlora",
    ),
    ({"freeze": "lm", "mmc4_features": "f"}, "--freeze lm or none with precomputed features"),
    ({"freeze": "none", "stream_opt": ("mmc4.features=f",)}, "--freeze lm or none with"),
]
TAKEN: list[dict[str, object]] = [
    {"cpu_offload": "params", "parallel": "fsdp"},
    {"cpu_offload": "optimizer", "optimizer": "sgd", "momentum": 0.9},
    {"checkpoint_policy": "selective", "gradient_checkpointing": True},
    {"freeze": "vision", "mmc4_features": "f"},
    {"freeze": "lm", "lm_adapter": "qlora"},
    {"cpu_offload": "params", "parallel": "fsdp", "lm_adapter": "lora"},
]


def options(**changes: object) -> Train:
    given: dict[str, object] = {"lm_path": "lm", "run_name": "run", "mmc4_shards": "shards"}
    return Train(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("changes", "text"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line_with_what_to_give(
    changes: dict[str, object], text: str
) -> None:
    with pytest.raises(UserError) as caught:
        options(**changes)
    message = str(caught.value)
    assert message.startswith(text)
    assert "; instead: " in message
    assert "\n" not in message


@pytest.mark.parametrize("changes", TAKEN)
def test_what_looks_alike_and_can_be_is_taken(changes: dict[str, object]) -> None:
    options(**changes)


@pytest.mark.parametrize("row", ALL_REFUSALS, ids=lambda row: row.options)
def test_no_row_is_without_a_test(row: Refusal) -> None:
    assert [text for _, text in REFUSED if row.options.startswith(text)] != []


def test_the_page_shows_the_table_of_the_code() -> None:
    """`python -m tests.levers_page` rewrites it after a change that was meant."""
    page = PAGE.read_text(encoding="utf-8")
    assert with_block(page, "refusals", refusals()) == page
