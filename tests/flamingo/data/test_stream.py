"""Batches: pictures with their text, the same sequence from anywhere, nothing gone in silence."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.data.batch import Batch
from flamingo.data.order import LanePosition, Position
from flamingo.data.stream import Stream
from flamingo.modules.loss import IGNORED
from mmdata.errors import BadInputError, UserError
from mmdata.training_view.sequence import MediaTokenizer
from tests.shard_factory import Dataset, make_image, make_pairs, make_tar

from .conftest import SIDE, colour_of, config_of, make_page, write_pages


def take(stream: Stream, number: int, start: Position | None = None) -> list[Batch]:
    return list(itertools.islice(stream.batches(start), number))


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in ("pixels", "images_per_sample", "input_ids", "attention_mask", "labels"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.keys, one.position, one.drops, one.num_targets) == (
            (other.keys, other.position, other.drops, other.num_targets)
        )


def colours(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(image[:, 0, 0].tolist()) for image in batch.pixels]


class TestPicturesAndText:
    def test_the_kth_picture_is_the_kth_tags(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        """Image 0 belongs to sentence 2, image 1 to sentence 1: in order of the document, as
        OpenFlamingo stacks them, both would be with the other's text."""
        pages = write_pages(tmp_path, [[make_page(0, [2, 1]), make_page(1, [0, 2, 1])]])
        (batch,) = take(Stream(config_of(pages.folder), tokenizer, validation=True), 9)
        assert batch.images_per_sample.tolist() == [2, 3]
        assert colours(batch) == [
            colour_of(0, 1),
            colour_of(0, 0),
            colour_of(1, 0),
            colour_of(1, 2),
            colour_of(1, 1),
        ]
        tags = (batch.input_ids == tokenizer.image_id).sum(dim=1)
        assert tags.equal(batch.images_per_sample)

    def test_shapes_types_and_padding(self, pages: Dataset, tokenizer: MediaTokenizer) -> None:
        batch = take(Stream(config_of(pages.folder), tokenizer), 1)[0]
        assert batch.pixels.shape == (8, 3, SIDE, SIDE)
        assert batch.pixels.dtype == torch.uint8
        assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape
        assert int(batch.attention_mask.sum(dim=1).max()) == batch.input_ids.shape[1]
        assert batch.num_targets == int((batch.labels[:, 1:] != IGNORED).sum())
        assert len(batch) == len(batch.keys) == 4

    def test_pictures_whose_tag_was_cut_off_are_left_out(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        """OpenFlamingo passes them on, and encodes them."""
        page = make_page(0, [0, 2], texts=["Short.", "long " * 400, "Beyond."])
        pages = write_pages(tmp_path, [[page]])
        stream = Stream(config_of(pages.folder), tokenizer, validation=True)
        (batch,) = take(stream, 1)
        assert colours(batch) == [colour_of(0, 0)]
        assert batch.input_ids.shape == (1, 256)
        assert batch.drops == Counter({"image:cut-off": 1})

    def test_a_literal_tag_in_text_takes_no_picture(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        page = make_page(0, [0, 1], texts=["An <image> tag.", "Here <|endofchunk|> too."])
        pages = write_pages(tmp_path, [[page]])
        (batch,) = take(Stream(config_of(pages.folder), tokenizer, validation=True), 1)
        assert int((batch.input_ids == tokenizer.image_id).sum()) == 2

    def test_given_documents_keep_their_structure(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        page = make_page(0, [1, 1, 0], alignment="given", source="placeholder", similarity=0.0)
        pages = write_pages(tmp_path, [[page]], kind="custom")
        (batch,) = take(Stream(config_of(pages.folder), tokenizer, validation=True), 1)
        assert colours(batch) == [colour_of(0, 2), colour_of(0, 0), colour_of(0, 1)]


class TestOrder:
    def test_resume_gives_the_rest(self, pages: Dataset, tokenizer: MediaTokenizer) -> None:
        undisturbed = take(Stream(config_of(pages.folder), tokenizer, seed=7), 20)
        assert undisturbed[-1].position.last_epoch >= 2
        for number in range(20):
            fresh = Stream(config_of(pages.folder), tokenizer, seed=7)
            rest = take(fresh, 20 - number - 1, undisturbed[number].position)
            assert_equal(rest, undisturbed[number + 1 :])

    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_threads_change_nothing(
        self, threads: int, pages: Dataset, tokenizer: MediaTokenizer
    ) -> None:
        config = config_of(pages.folder, decode_threads=threads)
        assert_equal(
            take(Stream(config, tokenizer, seed=7), 12),
            take(Stream(config_of(pages.folder), tokenizer, seed=7), 12),
        )

    def test_another_seed_is_another_order(self, pages: Dataset, tokenizer: MediaTokenizer) -> None:
        orders = {
            tuple(key for batch in take(stream, 8) for key in batch.keys)
            for stream in (Stream(config_of(pages.folder), tokenizer, seed=seed) for seed in (1, 2))
        }
        assert len(orders) == 2

    def test_every_record_once_an_epoch(self, pages: Dataset, tokenizer: MediaTokenizer) -> None:
        config = config_of(pages.folder, batch_size=5)
        batches = take(Stream(config, tokenizer), 21)
        keys = [key for batch in batches for key in batch.keys]
        assert batches[6].position == Position((LanePosition(1),) * 5)
        for epoch in range(3):
            assert len(set(keys[epoch * 35 : epoch * 35 + 35])) == 35
        assert keys[:35] != keys[35:70]

    def test_validation_is_every_sample_once_in_order(
        self, pages: Dataset, tokenizer: MediaTokenizer
    ) -> None:
        stream = Stream(config_of(pages.folder), tokenizer, validation=True)
        batches = list(stream.batches())
        assert [key for batch in batches for key in batch.keys] == [
            f"{number:012d}" for number in range(35)
        ]
        assert [len(batch) for batch in batches] == [4] * 8 + [3]

    def test_identity_is_of_the_sequence(self, pages: Dataset, tokenizer: MediaTokenizer) -> None:
        first = Stream(config_of(pages.folder), tokenizer, seed=1).identity
        assert first == Stream(config_of(pages.folder), tokenizer, seed=1).identity
        assert first != Stream(config_of(pages.folder), tokenizer, seed=2).identity
        part = config_of(pages.path(0), pages.path(1))
        assert first != Stream(part, tokenizer, seed=1).identity


class TestDrops:
    def test_the_coin_is_half_and_another_one_each_epoch(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        pages = write_pages(tmp_path, [[make_page(number, [0]) for number in range(60)]])
        stream = Stream(config_of(pages.folder, batch_size=1), tokenizer)
        epochs: dict[int, set[str]] = {0: set(), 1: set()}
        dropped: Counter[str] = Counter()
        before = LanePosition()
        for batch in stream.batches():
            after = batch.position.lane(0)
            if before.epoch == after.epoch < 2:
                epochs[before.epoch] |= set(batch.keys)
            dropped += batch.drops
            before = after
            if before.epoch >= 2:
                break
        assert all(15 < len(keys) < 45 for keys in epochs.values())
        assert epochs[0] != epochs[1]
        assert set(dropped) == {"document:single-image"}
        assert dropped == stream.drops

    def test_each_record_is_used_or_counted(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        documents = [
            make_page(0, [0, 1]),
            b"{not json",
            b'{"is_gpt": 1}',
            b'{"text_list": [], "image_info": []}',
            make_page(1, []),
            make_page(2, [0], similarity=0.2),
            make_page(3, [0, 1]) | {"similarity_matrix": [[0.3, 0.3, 0.3]]},
            make_page(4, [0, 1, 2]),
        ]
        pages = write_pages(tmp_path, [documents])
        stream = Stream(config_of(pages.folder, max_images=2), tokenizer, validation=True)
        (batch,) = list(stream.batches())
        assert batch.keys == ("000000000000", "000000000007")
        assert batch.drops == Counter(
            {
                "document:bad-record": 1,
                "document:unsupported-record": 1,
                "document:no-text": 1,
                "document:no-images": 1,
                "document:below-similarity": 1,
                "document:bad-alignment": 1,
                "image:over-max-images": 1,
            }
        )

    def test_drops_behind_the_last_batch_count_too(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        pages = write_pages(tmp_path, [[make_page(0, [0, 1]), make_page(1, [])]])
        stream = Stream(config_of(pages.folder, batch_size=1), tokenizer, validation=True)
        assert len(list(stream.batches())) == 1
        assert stream.drops == Counter({"document:no-images": 1})


class TestBrokenImages:
    def broken(self, page: dict[str, Any], image: int, data: str = "bm90IGFuIGltYWdl") -> None:
        page["image_info"][image]["image_base64"] = data

    @pytest.mark.parametrize("data", ["bm90IGFuIGltYWdl", "b'/9j/4AAQ'"])
    @pytest.mark.parametrize("threads", [0, 2])
    def test_costs_itself_only(
        self, data: str, threads: int, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        page = make_page(0, [2, 0])
        self.broken(page, 1, data)
        pages = write_pages(tmp_path, [[page]])
        config = config_of(pages.folder, decode_threads=threads)
        (batch,) = take(Stream(config, tokenizer, validation=True), 1)
        assert colours(batch) == [colour_of(0, 0)]
        assert batch.drops == Counter({"image:undecodable": 1})
        assert tokenizer.decode(batch.input_ids[0].tolist()).count("<image>") == 1

    def test_another_comes_in_for_it(self, tmp_path: Path, tokenizer: MediaTokenizer) -> None:
        page = make_page(0, [0, 1, 2])
        self.broken(page, 0)
        pages = write_pages(tmp_path, [[page]])
        stream = Stream(config_of(pages.folder, max_images=2), tokenizer, validation=True)
        (batch,) = take(stream, 1)
        assert colours(batch) == [colour_of(0, 1), colour_of(0, 2)]

    def test_all_of_them(self, tmp_path: Path, tokenizer: MediaTokenizer) -> None:
        page = make_page(0, [0])
        self.broken(page, 0)
        pages = write_pages(tmp_path, [[page]])
        with pytest.raises(UserError, match="every document is dropped as images-undecodable"):
            take(Stream(config_of(pages.folder), tokenizer), 1)


class TestNothingToTrainOn:
    """OpenFlamingo's loader goes round for ever."""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"min_similarity": 0.9},
                "every document is below --mmc4-textsim-threshold 0.9: all 35 dropped",
            ),
            (
                {"min_image_bytes": 11_000},
                "without an image of 11,000 bytes or more (--mmc4-min-image-bytes): all 35",
            ),
            (
                {"min_images": 3},
                "every document is left with fewer images than --mmc4-min-num-images 3: all 35",
            ),
            ({"rule": "caption"}, "not one image and its text"),
        ],
    )
    @pytest.mark.parametrize("validation", [False, True])
    def test_is_an_error_that_says_why(
        self,
        changes: dict[str, Any],
        words: str,
        validation: bool,
        pages: Dataset,
        tokenizer: MediaTokenizer,
    ) -> None:
        stream = Stream(config_of(pages.folder, **changes), tokenizer, validation=validation)
        with pytest.raises(UserError) as error:
            next(stream.batches())
        assert words in str(error.value)

    def test_openflamingos_default_threshold(
        self, pages: Dataset, tokenizer: MediaTokenizer
    ) -> None:
        with pytest.raises(UserError, match=r"did you mean 0\.30\?"):
            Stream(config_of(pages.folder, min_similarity=30), tokenizer)

    def test_several_reasons(self, tmp_path: Path, tokenizer: MediaTokenizer) -> None:
        low = [make_page(number, [0], similarity=0.2) for number in range(2)]
        pages = write_pages(tmp_path, [[*low, b"?"]])
        with pytest.raises(UserError) as error:
            next(Stream(config_of(pages.folder), tokenizer).batches())
        assert str(error.value) == (
            "stream mmc4: all 3 documents dropped: 2 are below --mmc4-textsim-threshold 0.24; "
            "1 is dropped as bad-record; nothing to train on"
        )

    def test_a_coin_may_fall_otherwise_the_next_time(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        pages = write_pages(tmp_path, [[make_page(0, [0])]])
        assert len(take(Stream(config_of(pages.folder, batch_size=1), tokenizer), 8)) == 8
        never = config_of(pages.folder, keep_single_image=0.0)
        with pytest.raises(UserError, match="of a single image, of which none are kept"):
            take(Stream(never, tokenizer), 1)

    def test_after_a_resume_a_whole_pass_is_waited_for(
        self, pages: Dataset, tokenizer: MediaTokenizer
    ) -> None:
        stream = Stream(config_of(pages.folder, min_similarity=0.9), tokenizer)
        with pytest.raises(UserError, match="all 35 dropped"):
            next(stream.batches(Position((LanePosition(4, 3),) * 4)))


class TestCaptions:
    def test_pairs_of_img2dataset(self, tmp_path: Path, tokenizer: MediaTokenizer) -> None:
        stream = Stream(config_of(make_pairs(tmp_path), batch_size=3), tokenizer, validation=True)
        assert stream.rule == "caption"
        (batch,) = list(stream.batches())
        assert batch.images_per_sample.tolist() == [1, 1, 1]
        texts = [tokenizer.decode(row[mask.bool()].tolist()) for row, mask in rows(batch)]
        assert texts[0] == "<image>caption 0<|endofchunk|><|endoftext|>"
        assert batch.labels[0, 0] == IGNORED

    def test_documents_of_a_laion_conversion(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        shard = [
            make_page(number, [0], texts=[f"a cat {number}"], alignment="given", source="laion")
            for number in range(5)
        ]
        pages = write_pages(tmp_path, [shard], kind="laion")
        stream = Stream(config_of(pages.folder), tokenizer, validation=True)
        assert stream.rule == "caption"
        first, _ = list(stream.batches())
        assert tokenizer.decode(first.input_ids[1].tolist()) == (
            "<image>a cat 1<|endofchunk|><|endoftext|>"
        )
        assert colours(first)[1] == colour_of(1, 0)

    def test_no_coin_and_no_byte_filter(self, tmp_path: Path, tokenizer: MediaTokenizer) -> None:
        config = config_of(make_pairs(tmp_path), batch_size=3, min_image_bytes=11_000)
        batches = take(Stream(config, tokenizer), 4)
        assert all(len(set(batch.keys)) == 3 and not batch.drops for batch in batches)

    def test_what_is_no_pair_is_counted(self, tmp_path: Path, tokenizer: MediaTokenizer) -> None:
        members = [
            ("0.jpg", make_image(0)),
            ("0.txt", b"fine"),
            ("1.jpg", make_image(1)),
            ("2.txt", b"no picture"),
            ("3.png", make_image(3, kind="png")),
            ("3.txt", b"  "),
            ("4.jpg", b"no jpeg"),
            ("4.txt", b"broken"),
            ("5.jpg", make_image(5)),
            ("5.txt", b"\xff\xfe"),
        ]
        (tmp_path / "a.tar").write_bytes(make_tar(members))
        stream = Stream(config_of(tmp_path, rule="caption"), tokenizer, validation=True)
        (batch,) = list(stream.batches())
        assert batch.keys == ("0",)
        assert batch.drops == Counter(
            {
                "document:no-text": 2,
                "document:not-a-pair": 1,
                "document:images-undecodable": 1,
                "document:bad-record": 1,
            }
        )


def rows(batch: Batch) -> "zip[tuple[torch.Tensor, torch.Tensor]]":
    return zip(batch.input_ids, batch.attention_mask, strict=True)


def test_openflamingos_own_shards(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    """No alignment, no version, no sidecar; two images out of the order of their sentences."""
    page = make_page(0, [2, 1])
    for name in ("format_version", "alignment", "similarity_source"):
        del page[name]
    page["image_info"] = [{"image_base64": one["image_base64"]} for one in page["image_info"]]
    (tmp_path / "000000000.tar").write_bytes(
        make_tar([("u-u-i-d.json", json.dumps(page).encode())])
    )
    stream = Stream(config_of(tmp_path), tokenizer, validation=True)
    assert stream.rule == "interleaved"
    (batch,) = list(stream.batches())
    assert colours(batch) == [colour_of(0, 1), colour_of(0, 0)]


def test_shards_that_do_not_tell_their_rule(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    (tmp_path / "a.tar").write_bytes(make_tar([("a.json", b'{"some": "thing"}')]))
    with pytest.raises(UserError, match=r"stream \w+: .*a\.tar: its first .*; set its rule"):
        Stream(config_of(tmp_path), tokenizer)


def test_mirrored_images_are_the_same_ones_every_time(
    tmp_path: Path, tokenizer: MediaTokenizer
) -> None:
    config = config_of(make_pairs(tmp_path, samples=12), batch_size=12, random_flip=True)
    first, second = (take(Stream(config, tokenizer), 1)[0].mirrored for _ in range(2))
    assert first is not None
    assert first.equal(second)
    assert 0 < int(first.sum()) < 12
    checked = next(Stream(config, tokenizer, validation=True).batches())
    assert checked.mirrored is None


def test_a_shard_that_is_not_what_its_manifest_says(
    pages: Dataset, tokenizer: MediaTokenizer
) -> None:
    rows = pages.read_samples(0)
    pages.write_samples(0, rows[:-1])
    stream = Stream(config_of(pages.folder), tokenizer, validation=True)
    with pytest.raises(BadInputError, match="expected 7 samples as its manifest says, got 6"):
        list(stream.batches())


def test_leaving_a_stream_stops_its_threads(pages: Dataset, tokenizer: MediaTokenizer) -> None:
    import threading

    batches = Stream(config_of(pages.folder), tokenizer).batches()
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name.startswith("decode")]
