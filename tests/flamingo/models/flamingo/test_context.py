"""The media of the call in progress, and the position that decides which of them count."""

import pytest
import torch

from flamingo.models.flamingo.context import MediaContext, count_tags

LATENTS = torch.randn(2, 2, 3, 4)
TIME = torch.tensor([[0, 1, 2], [0, 0, 1]])


def times(context: MediaContext) -> list[list[bool]]:
    """Which pictures each position sees: those to whose scores nothing is added."""
    return (context.current.mask == 0).squeeze(1)[:, :, ::3].tolist()


def test_tags_are_counted_up_to_each_position():
    ids = torch.tensor([[7, 1, 7, 7, 2]])
    assert count_tags(ids, 7).tolist() == [[1, 1, 2, 3, 3]]
    assert count_tags(ids, 7, torch.tensor([2])).tolist() == [[3, 3, 4, 5, 5]]


@pytest.mark.parametrize("num_cached", [3, None])
def test_text_behind_the_prompt_keeps_the_count_of_its_end(num_cached):
    context = MediaContext()
    with context.open(LATENTS, TIME, generating=True):
        context.begin_pass(2, 1, num_cached)
        assert times(context) == [[[False, True]], [[True, False]]]


def test_a_pass_over_everything_counts_from_the_start():
    context = MediaContext()
    with context.open(LATENTS, TIME, generating=True):
        context.begin_pass(2, 5, None)
        assert times(context)[0] == [[True, True], [True, False], *[[False, True]] * 3]


def test_rows_of_a_sample_lie_next_to_each_other():
    context = MediaContext()
    with context.open(LATENTS, TIME, generating=True):
        context.begin_pass(6, 1, 3)
        assert times(context) == [[[False, True]]] * 3 + [[[True, False]]] * 3
        with pytest.raises(RuntimeError, match="5 rows of text for the media of 2 samples"):
            context.begin_pass(5, 1, 3)


def test_it_takes_one_call_at_a_time():
    context = MediaContext()
    second = context.open(LATENTS, TIME)
    with context.open(LATENTS, TIME), pytest.raises(RuntimeError, match="one call at a time"):
        second.__enter__()


def fail_inside(context: MediaContext) -> None:
    with context.open(LATENTS, TIME):
        context.begin_pass(2, 3, None)
        raise KeyboardInterrupt


def test_it_is_empty_after_a_failure():
    context = MediaContext()
    with pytest.raises(KeyboardInterrupt):
        fail_inside(context)
    assert not context.is_open
    assert context.current is None
