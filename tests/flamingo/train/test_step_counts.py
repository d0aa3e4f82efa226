"""What ranks tell each other of a step comes together, and a blank pass adds nothing to it."""

from collections import Counter
from dataclasses import replace

import torch

from flamingo.data.batch import blank_batch
from flamingo.data.counts import StreamCounts
from flamingo.train.step_counts import StepCounts


def test_counts_add_up_and_the_rank_with_most_passes_decides() -> None:
    targets, passes = {"a": 3, "b": 0}, {"a": 2, "b": 1}
    counts = {"a": StreamCounts(4, 50, 6, 3, 6), "b": StreamCounts()}
    first = StepCounts(targets, passes, counts, Counter({"x": 1}), 0.5)
    counts = {"a": StreamCounts(3, 40, 5, 2, 0), "b": StreamCounts()}
    second = StepCounts({"a": 2, "b": 0}, {"a": 2, "b": 0}, counts, Counter({"x": 1, "y": 2}), 0.25)
    assert StepCounts.together([first, second]) == StepCounts(
        {"a": 5, "b": 0},
        {"a": 2, "b": 1},
        {"a": StreamCounts(7, 90, 11, 5, 6), "b": StreamCounts()},
        Counter({"x": 2, "y": 2}),
        0.5,
    )


def test_what_is_computed_beside_the_samples_is_counted_apart() -> None:
    ids = torch.zeros(2, 8, dtype=torch.long)
    mask = torch.tensor([[1] * 8, [1] * 3 + [0] * 5])
    batch = replace(blank_batch(), input_ids=ids, attention_mask=mask, num_targets=9)
    batch = replace(batch, images_per_sample=torch.tensor([2, 1]), keys=("a", "b"))
    parts = [StepCounts.of({"a": micro}, 0.0) for micro in ([batch, batch], [batch])]
    counts = StepCounts.together(parts).streams["a"]
    assert (counts.tokens, counts.positions, counts.images, counts.blank_images) == (33, 48, 9, 1)
    computed = counts.computed
    assert (computed.tokens, computed.images, computed.encoded) == (48, 10, 10)
    # With features in place of pixels a blank picture leaves the tower alone as well.
    assert replace(counts, encoded=0).computed.encoded == 0


def test_the_stream_with_most_text_in_a_pass_comes_last() -> None:
    def given(text: int) -> StreamCounts:
        return StreamCounts(positions=text)

    targets, passes = {"a": 5, "b": 1, "c": 0}, {"a": 1, "b": 4, "c": 1}
    counts = StepCounts(targets, passes, {"a": given(200), "b": given(400), "c": given(0)})
    ordered = counts.largest_last()
    assert list(ordered.targets) == ["c", "b", "a"]
    assert ordered == counts  # in all but the order


def test_a_blank_batch_counts_nothing_that_is_learnt_from() -> None:
    step = StepCounts.of({"a": [blank_batch()]}, 0.0)
    assert step.targets == {"a": 0}
    assert step.passes == {"a": 1}
    counts = step.streams["a"]
    assert (counts.samples, counts.images, counts.encoded) == (0, 0, 0)


def test_a_blank_batch_beside_features_leaves_the_tower_alone() -> None:
    batch = blank_batch(feature_width=32)
    assert batch.pixels is None
    assert batch.features is not None
    assert batch.features.shape == (0, 1, 32)
