"""A cache is found and handed on under the name that the LM at hand has for it."""

import pytest
from torch import nn

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.lm_cache import NAMES, cache_argument, cache_in, positions_held
from flamingo.modules.loss import CausalOutput
from mmdata.errors import UserError


def lm_that_takes(name: str) -> nn.Module:
    """An LM as code beside a checkpoint writes it, whatever version of transformers is there."""
    namespace: dict[str, object] = {}
    exec(f"def forward(self, input_ids=None, {name}=None, use_cache=False): ...", namespace)
    return type("Lm", (nn.Module,), {"forward": namespace["forward"]})()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_handed_on_under_the_name_in_the_signature(name: str) -> None:
    cache = object()
    assert cache_argument(lm_that_takes(name), cache) == {name: cache}
    assert cache_argument(lm_that_takes(name), None) == {}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_found_under_every_name(name: str) -> None:
    cache = object()
    assert cache_in({"logits": 1, name: cache}) is cache
    assert cache_in({"logits": 1}) is None


def test_how_much_it_holds_is_asked_only_of_one_that_knows() -> None:
    class Recurrent:
        def get_seq_length(self) -> int:
            raise ValueError("only recurrent layers")

    class Filled:
        def get_seq_length(self) -> int:
            return 7

    assert positions_held(None) is positions_held(Recurrent()) is None
    assert positions_held(Filled()) == 7


def test_an_output_answers_to_both_names() -> None:
    cache = object()
    output = CausalOutput(cache=cache)
    assert output.cache is output.past_key_values is output["cache"] is cache


def test_both_names_at_once_are_refused() -> None:
    from tests.flamingo.models.flamingo.tiny_lms import make_flamingo, prompts

    model: Flamingo = make_flamingo("llama")
    ids, mask, images, counts = prompts()
    with pytest.raises(UserError, match="past_key_values, got both"):
        model(ids, mask, None, images, counts, cache=object(), past_key_values=object())
