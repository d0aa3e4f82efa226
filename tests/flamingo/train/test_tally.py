"""What ranks tell each other of a step comes together, and a blank pass adds nothing to it."""

from collections import Counter

from flamingo.train.tally import Tally, blank_batch


def test_counts_add_up_and_the_rank_with_most_passes_decides() -> None:
    first = Tally({"a": 3, "b": 0}, {"a": 2, "b": 1}, 4, 50, 6, Counter({"x": 1}), 0.5)
    second = Tally({"a": 2, "b": 0}, {"a": 2, "b": 0}, 3, 40, 5, Counter({"x": 1, "y": 2}), 0.25)
    assert Tally.together([first, second]) == Tally(
        {"a": 5, "b": 0}, {"a": 2, "b": 1}, 7, 90, 11, Counter({"x": 2, "y": 2}), 0.5
    )


def test_the_last_pass_is_of_the_last_stream_that_has_targets() -> None:
    assert Tally({"a": 5, "b": 1}, {"a": 2, "b": 3}).last_pass == ("b", 2)
    assert Tally({"a": 5, "b": 0}, {"a": 2, "b": 3}).last_pass == ("a", 1)
    assert Tally({"a": 0}, {"a": 2}).last_pass is None


def test_a_blank_batch_counts_nothing() -> None:
    tally = Tally.of({"a": [blank_batch()]}, 0.0)
    assert tally == Tally({"a": 0}, {"a": 1}, samples=0, tokens=tally.tokens)


def test_a_blank_batch_beside_features_leaves_the_tower_alone() -> None:
    batch = blank_batch(feature_width=32)
    assert batch.pixels is None
    assert batch.features is not None
    assert batch.features.shape == (0, 1, 32)
