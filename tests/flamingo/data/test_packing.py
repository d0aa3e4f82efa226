"""Packed sequences hold the samples of unpacked ones, in order, and nothing of them is lost."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.batch import Batch
from flamingo.data.order import Position
from flamingo.data.packing import NextFit, pack_layout
from flamingo.data.stream import Stream
from flamingo.modules.loss import IGNORED
from mmdata.errors import UserError
from mmdata.training_view.sequence import MediaTokenizer
from tests.shard_factory import Dataset

from .conftest import config_of, make_page, write_pages

ROOM = 100


@given(st.lists(st.integers(1, ROOM), max_size=40))
def test_next_fit_keeps_the_order_and_opens_a_sequence_only_when_it_must(
    lengths: list[int],
) -> None:
    open_sequence: NextFit[int] = NextFit(ROOM)
    sequences = [closed for one in lengths if (closed := open_sequence.add(one, one))]
    if last := open_sequence.close():
        sequences.append(last)
    assert [one for sequence in sequences for one in sequence] == lengths
    assert all(sum(sequence) <= ROOM for sequence in sequences)
    for one, following in pairwise(sequences):
        assert sum(one) + following[0] > ROOM
    assert open_sequence.close() == []


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_layout_puts_every_token_of_every_sample(sequences: list[list[int]]) -> None:
    lengths = [length for sequence in sequences for length in sequence]
    padded = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        padded[row, :length] = torch.arange(length) + 100 * (row + 1)
    layout = pack_layout(torch.tensor(lengths), [len(sequence) for sequence in sequences])
    packed = layout.put(padded, -7)
    width = max(map(sum, sequences))
    assert packed.shape == (len(sequences), width)
    number = 0
    for row, sequence in zip(packed.tolist(), sequences, strict=True):
        expected = []
        for length in sequence:
            number += 1
            expected += [100 * number + at for at in range(length)]
        assert row == expected + [-7] * (width - len(expected))
    index = [[at for at, n in enumerate(sequence) for _ in range(n)] for sequence in sequences]
    for row, own in zip(layout.document_index.tolist(), index, strict=True):
        assert row == own + [-1] * (width - len(own))


def documents_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """(ids, labels that count) of each sample."""
    index = batch.document_index
    if index is None:
        index = batch.attention_mask - 1
    found = []
    for row in range(len(batch)):
        for number in range(int(index[row].max()) + 1):
            own = index[row] == number
            labels = batch.labels[row, own].tolist()
            found.append((batch.input_ids[row, own].tolist(), [IGNORED, *labels[1:]]))
    return found


@pytest.fixture
def uneven(tmp_path: Path) -> Dataset:
    """Documents of many lengths, some dropped on the way."""
    texts = [[" ".join(["word"] * (1 + 7 * n % 23)), "b.", "c."] for n in range(24)]
    pages = [
        make_page(n, [0, 2], texts=texts[n], similarity=0.2 if n % 5 == 0 else 0.35)
        for n in range(24)
    ]
    return write_pages(tmp_path / "uneven", [pages[:10], pages[10:]])  # type: ignore[list-item]


def test_a_packed_epoch_holds_the_samples_of_an_unpacked_one(
    uneven: Dataset, tokenizer: MediaTokenizer
) -> None:
    plain = list(Stream(config_of(uneven.folder), tokenizer, validation=True).batches())
    config = config_of(uneven.folder, max_tokens=64, pack_tokens=96, batch_size=2)
    packed = list(Stream(config, tokenizer, validation=True).batches())
    assert len(packed) < len(plain)
    for batch in packed:
        assert batch.input_ids.shape[1] <= 96
        assert batch.document_index is not None
        assert batch.num_images == len(batch.image_index) == len(batch.pixels)  # type: ignore[arg-type]
        tags = (batch.input_ids == tokenizer.image_id).sum(dim=1)
        assert tags.equal(batch.images_per_sample)
        assert batch.attention_mask.equal((batch.document_index >= 0).long())
    assert [one for batch in packed for one in documents_of(batch)] == [
        one for batch in plain for one in documents_of(batch)
    ]
    assert torch.equal(
        torch.cat([batch.pixels for batch in packed if batch.pixels is not None]),
        torch.cat([batch.pixels for batch in plain if batch.pixels is not None]),
    )
    assert sum(batch.num_targets for batch in packed) == sum(b.num_targets for b in plain)
    assert [k for b in packed for k in b.keys] == [k for b in plain for k in b.keys]


def test_a_position_behind_any_packed_batch_goes_on_with_the_next(
    uneven: Dataset, tokenizer: MediaTokenizer
) -> None:
    config = config_of(uneven.folder, max_tokens=64, pack_tokens=96, batch_size=2)

    def take(start: Position | None, number: int) -> list[Batch]:
        batches = Stream(config, tokenizer).batches(start)
        return [next(batches) for _ in range(number)]

    whole = take(None, 8)
    for at in range(7):
        (following,) = take(whole[at].position, 1)
        assert following.keys == whole[at + 1].keys
        assert following.input_ids.equal(whole[at + 1].input_ids)
        assert following.position == whole[at + 1].position


def test_a_sequence_shorter_than_a_sample_is_refused(
    uneven: Dataset, tokenizer: MediaTokenizer
) -> None:
    with pytest.raises(UserError, match="pack_tokens 96: expected at least the 256 tokens"):
        Stream(config_of(uneven.folder, pack_tokens=96), tokenizer)
