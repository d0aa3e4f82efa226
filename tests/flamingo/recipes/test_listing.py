"""What `mmdata recipes` lists; each model is built without weights, at its published size."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flamingo.memory.estimate import Estimate
from flamingo.recipes import listing
from flamingo.recipes.catalogue import NAMES, recipe_path
from flamingo.recipes.listing import columns, estimate_recipe, estimated_options, list_recipes
from flamingo.recipes.listing import verdict as verdict_of
from flamingo.train.build import build_empty
from mmdata.cli.config_file import read_changed
from mmdata.errors import UserError
from tests.flamingo.conftest import World

RESAMPLER = 63_019_008
#: Of OpenFlamingo's cross-attention, by width of the language model.
BLOCK = {2048: 36_708_354, 2560: 56_109_058, 4096: 139_476_994}
#: Language model -> parameters in billions as its publishers say, width, cross-attention blocks.
MODELS = {
    "anas-awadalla/mpt-1b-redpajama-200b": (1.3, 2048, 24),
    "anas-awadalla/mpt-1b-redpajama-200b-dolly": (1.3, 2048, 24),
    "togethercomputer/RedPajama-INCITE-Base-3B-v1": (2.8, 2560, 16),
    "togethercomputer/RedPajama-INCITE-Instruct-3B-v1": (2.8, 2560, 16),
    "anas-awadalla/mpt-7b": (6.6, 4096, 8),
}


@pytest.fixture(autouse=True, scope="module")
def estimated_once() -> Iterator[None]:
    """Tests that ask for the estimate of one recipe share it: a model is built for each."""
    kept: dict[tuple[Any, ...], Estimate] = {}

    def once(name: str, read: Any, changed: Sequence[str]) -> Estimate:
        key = (name, read, *changed)
        if key not in kept:
            kept[key] = estimate_recipe(name, read, changed)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "estimate_recipe", once)
        yield


def changes(world: World) -> list[str]:
    """A recipe on models that are small and on this machine."""
    return [
        f"lm-path={world.lm}",
        f"vision-encoder-path={world.clip}",
        *("batch-size-mmc4=4", "batch-size-laion=4", "device=cpu", "trust-remote-code=false"),
    ]


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_built_on_the_meta_device_at_its_published_size(name: str) -> None:
    published = read_changed(str(recipe_path(name)), [])["lm_path"]
    billions, width, num_blocks = MODELS[published]
    with estimated_options(name, read_changed, []) as options:
        model: Any = build_empty(options)
    assert all(parameter.is_meta for parameter in model.parameters())
    own = [*model.perceiver.parameters()]
    own += [one for block in model.cross_attention_blocks for one in block.parameters()]
    assert sum(one.numel() for one in own) == RESAMPLER + num_blocks * BLOCK[width]
    assert all(one.requires_grad for one in own)
    added = {id(one) for one in own}
    lm = [
        one
        for part, one in model.lang_encoder.named_parameters()
        if id(one) not in added and "lora_" not in part and "media_tokens" not in part
    ]
    assert sum(one.numel() for one in lm) / 1e9 == pytest.approx(billions, abs=0.06)


def test_a_row_tells_where_memory_goes(world: World) -> None:
    found = listing.estimate_recipe("baseline", read_changed, changes(world))
    parts = columns(found)
    assert sum(parts.values()) == found.total
    assert parts["optimizer"] >= 2 * parts["gradients"] > 0
    assert parts["communication"] == 0
    assert parts["activations"] > 0


def test_a_language_model_in_four_bits_is_estimated_as_one(world: World) -> None:
    mixed = [*changes(world), "precision=bf16-mixed"]
    whole = columns(listing.estimate_recipe("lora", read_changed, mixed))
    quantised = columns(listing.estimate_recipe("qlora", read_changed, mixed))
    # Four layers of 12 x 128 x 128 weights, of 16 bits each or of 4 and a scale for each 64.
    weights = 4 * 12 * 128 * 128
    saved = whole["parameters"] - quantised["parameters"]
    assert saved == pytest.approx(weights * (2 - 0.5 - 1 / 64), rel=0.02)
    assert quantised["gradients"] == whole["gradients"]


def test_the_list_says_what_fits_and_where_sizes_are_from(world: World) -> None:
    lines = list(list_recipes(["baseline", "offload"], read_changed, changes(world), 80.0))
    head, baseline, offload = (line.split() for line in lines[1:4])
    assert head[-7:] == ["total", "fits", "80", "GB", "against", "the", "baseline"]
    assert (baseline[0], baseline[-1]) == ("baseline", "yes")
    assert lines[1].index("against") == lines[3].index("cpu-offload: optimizer")
    assert "of the host)" in lines[3]
    assert offload[0] == "offload"
    tight = list(list_recipes(["baseline"], read_changed, changes(world), 0.001))
    assert tight[2].endswith("  no\n")


def test_what_nobody_counts_makes_a_fit_a_bare_one() -> None:
    assert verdict_of(72_000_000_000, 80) == "yes"
    assert verdict_of(73_000_000_000, 80) == "barely"
    assert verdict_of(80_000_000_001, 80) == "no"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lm-pth=x", "--set lm-pth=x: no option lm-pth; did you mean lm-path?"),
        ("batch-size-mmc4=x", "--set batch-size-mmc4=x: Expected int, got str"),
        ("precision=fp8", "--set precision=fp8: Invalid enum value 'fp8'"),
    ],
)
def test_a_wrong_change_is_one_line(change: str, said: str) -> None:
    with pytest.raises(UserError) as caught, estimated_options("mixed", read_changed, [change]):
        pass
    assert str(caught.value).startswith(said)
