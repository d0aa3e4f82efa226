"""A forecast is what the training stream then does: same selection, same tokens, same counts.

Run: pytest tests/pipelines/validate/test_forecast.py
"""

import base64
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from flamingo.data.config import StreamConfig
from flamingo.data.stream import Stream
from mmdata.errors import UserError
from mmdata.forecast.render import render_forecast
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.wording import plural
from pipelines.laion.options import ConvertLaion
from pipelines.laion.run import convert_laion
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from pipelines.repair.index import index
from pipelines.repair.options import Index
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from schemas.forecast import Forecast
from tests.conftest import ROOT
from tests.flamingo.data.conftest import (
    hf_tokenizer,
    make_page,
    make_picture,
    tokenizer,
    write_pages,
)
from tests.shard_factory import (
    Dataset,
    encode,
    foreign,
    make_document,
    make_image,
    make_pairs,
    make_shard_of,
    make_tar,
)

__all__ = ["hf_tokenizer", "tokenizer"]
TOKENIZER = str(ROOT / "tests" / "assets" / "parity_text" / "tokenizer")
SIDE = 8


@pytest.fixture(scope="module")
def sample_shards(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's documents, converted."""
    output = tmp_path_factory.mktemp("sample") / "shards"
    options = ConvertMmc4(
        docs=(str(sample),), images=str(sample / "images"), output=str(output), workers=0
    )
    assert convert_mmc4(options, quiet=True).complete
    return output


def rendered(found: Forecast) -> str:
    sink = io.StringIO()
    render_forecast(found, Console(file=sink, width=300))
    return sink.getvalue()


def ask(*shards: Path, **options: Any) -> Forecast:
    spec = Validate(shards=tuple(map(str, shards)), forecast=True, workers=0, **options)
    found = validate(spec).forecast
    assert found is not None
    return found


class Trained:
    """What a stream over the shards yields when it throws no coins."""

    def __init__(self, shards: Path, tokenizer: MediaTokenizer, **options: Any) -> None:
        config = StreamConfig(
            name="mmc4",
            shards=(str(shards),),
            batch_size=1,
            image_size=SIDE,
            decode_threads=0,
            **options,
        )
        stream = Stream(config, tokenizer, validation=True)
        self.documents = self.images = self.tokens = self.single = 0
        for batch in stream.batches():
            self.documents += 1
            self.images += int(batch.images_per_sample.sum())
            self.single += int(batch.images_per_sample.sum()) == 1
            self.tokens += int(batch.attention_mask.sum())
        self.drops = Counter(stream.drops)

    def dropped(self, kind: str) -> dict[str, int]:
        return {
            name.removeprefix(f"{kind}:"): count
            for name, count in self.drops.items()
            if name.startswith(f"{kind}:")
        }


SETTINGS: list[dict[str, Any]] = [
    {},
    {"min_similarity": 0.3, "min_image_bytes": 20_000},
    {"max_tokens": 24, "max_images": 2},
    {"min_images": 2, "surplus": "argmax", "min_image_bytes": 0},
]


class TestExact:
    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_equals_what_training_yields(
        self, sample_shards: Path, tokenizer: MediaTokenizer, settings: dict[str, Any]
    ) -> None:
        trained = Trained(sample_shards, tokenizer, **settings)
        found = ask(sample_shards, exact=True, tokenizer=TOKENIZER, **settings)
        assert (found.basis, found.looked_at, found.unsettled) == ("documents", 47, 0)
        assert (found.used, found.images_used) == (trained.documents, trained.images)
        assert found.dropped == trained.dropped("document")
        assert found.images_dropped == trained.dropped("image")
        assert found.single_image == trained.single
        assert found.tokens is not None
        assert found.tokens.total == trained.tokens

    @pytest.mark.parametrize("settings", SETTINGS[:2], ids=str)
    def test_from_the_tables_reads_only_what_they_leave_open(
        self, sample_shards: Path, settings: dict[str, Any]
    ) -> None:
        settings = {name: value for name, value in settings.items() if name != "max_tokens"}
        read = ask(sample_shards, exact=True, tokenizer=TOKENIZER, max_tokens=10_000, **settings)
        tables = ask(sample_shards, exact=True, **settings)
        assert (tables.basis, tables.unsettled) == ("tables", 0)
        for name in ("used", "dropped", "images_used", "images_dropped", "thresholds"):
            assert getattr(tables, name) == getattr(read, name)

    def test_the_tables_alone_say_what_they_cannot_tell(self, sample_shards: Path) -> None:
        found = ask(sample_shards)
        assert found.basis == "tables"
        assert 0 < found.unsettled < 47
        assert found.unsettled_small == found.unsettled
        assert ask(sample_shards, min_image_bytes=0).unsettled == 0

    def test_what_is_open_and_what_is_not_cut_is_said(self, sample_shards: Path) -> None:
        found = ask(sample_shards)
        small = f"{plural(found.unsettled_small, 'document')} lost small images and may be assigned"
        text = rendered(found)
        assert small in text
        assert (
            "without --tokenizer no text is cut here; training cuts at 256 tokens (its default), "
            "and uses no image behind the cut"
        ) in text
        none_small = msgspec.structs.replace(found, unsettled=3, unsettled_small=0)
        assert "small images" not in rendered(none_small)
        assert (
            "3 documents may be assigned otherwise: the tables do not tell how their alignment "
            "came about: --exact reads these"
        ) in rendered(none_small)

    def test_everything_adds_up(self, sample_shards: Path) -> None:
        found = ask(sample_shards, min_similarity=0.3)
        assert found.looked_at == found.used + sum(found.dropped.values())
        lost = sum(found.images_dropped.values()) + found.images_of_dropped_documents
        assert found.images == found.images_used + lost

    def test_the_threshold_of_the_run_is_in_the_table(self, sample_shards: Path) -> None:
        found = ask(sample_shards, exact=True)
        rows = {row.min_similarity: row for row in found.thresholds}
        assert list(rows) == [0.20, 0.22, 0.24, 0.26, 0.28, 0.30, 0.32]
        assert (rows[0.24].documents, rows[0.24].images) == (found.used, found.images_used)
        assert [row.documents for row in found.thresholds] == sorted(
            (row.documents for row in found.thresholds), reverse=True
        )


class TestTheCoin:
    def test_is_apart_and_is_the_difference_of_a_training_epoch(
        self, sample_shards: Path, tokenizer: MediaTokenizer
    ) -> None:
        """A stream with coins drops documents with one image, and nothing else more."""
        found = ask(sample_shards, exact=True, tokenizer=TOKENIZER, keep_single_image=0.0)
        config = StreamConfig(
            name="mmc4",
            shards=(str(sample_shards),),
            batch_size=1,
            image_size=SIDE,
            decode_threads=0,
            keep_single_image=0.0,
        )
        yielded = 0
        for batch in Stream(config, tokenizer).batches():
            lane = batch.position.lane(0)
            if lane.epoch and lane.index:
                break  # its sample is of the next epoch
            yielded += 1
            if lane.epoch:
                break
        assert found.coin_drops == found.single_image > 0
        assert yielded == found.used - found.single_image
        assert found.samples_per_epoch == found.used - found.single_image

    def test_counts_by_half(self, sample_shards: Path) -> None:
        found = ask(sample_shards, batch_size=10)
        assert found.coin_drops == found.single_image / 2
        assert found.samples_per_epoch == pytest.approx(found.used - found.coin_drops)
        assert found.steps_per_epoch == math.ceil(found.samples_per_epoch / 10)


class TestSample:
    def test_a_tokenizer_reads_a_sample_and_says_so(self, sample_shards: Path) -> None:
        found = ask(sample_shards, tokenizer=TOKENIZER, sample_documents=20, seed=3)
        assert (found.basis, found.documents, found.looked_at) == ("sample", 47, 20)
        assert found.seed == 3
        assert found.uncertainty > 0
        assert found.thresholds[0].documents > 20  # from the tables: of all documents
        assert ask(sample_shards, tokenizer=TOKENIZER, sample_documents=20, seed=3) == found

    def test_another_seed_is_another_sample(self, sample_shards: Path) -> None:
        one, other = (
            ask(sample_shards, tokenizer=TOKENIZER, sample_documents=20, seed=seed)
            for seed in (1, 2)
        )
        assert one.tokens != other.tokens

    def test_a_sample_as_large_as_the_dataset_is_all_of_it(self, sample_shards: Path) -> None:
        found = ask(sample_shards, tokenizer=TOKENIZER, sample_documents=47)
        assert (found.basis, found.seed, found.uncertainty) == ("documents", None, 0.0)

    def test_shards_of_others_have_no_tables(self, tmp_path: Path) -> None:
        for shard in range(2):
            members = [
                (f"{shard}_{n}.json", encode(foreign(make_document(shard * 10 + n))))
                for n in range(10)
            ]
            (tmp_path / f"{shard}.tar").write_bytes(make_tar(members))
        found = ask(tmp_path, min_image_bytes=0, min_similarity=0.2, sample_documents=8)
        assert (found.basis, found.documents, found.looked_at) == ("sample", 20, 8)
        assert found.used == 8
        everything = ask(tmp_path, min_image_bytes=0, min_similarity=0.2, exact=True)
        assert (everything.basis, everything.used) == ("documents", 20)

    def test_index_changes_nothing(self, tmp_path: Path) -> None:
        """Its tables hold what the documents say, and these need no assignment of their own."""
        documents = [foreign(make_document(n)) for n in range(6)]
        for document in documents[3:]:
            for image in document["image_info"]:
                del image["matched_text_index"], image["matched_sim"]
        members = [(f"{n}.json", encode(one)) for n, one in enumerate(documents)]
        (tmp_path / "a.tar").write_bytes(make_tar(members))
        settings: dict[str, Any] = {"min_image_bytes": 0, "min_similarity": 0.2}
        before = ask(tmp_path, **settings)
        assert index(Index(shards=(str(tmp_path),), workers=0)).exit_code == 0
        assert ask(tmp_path, **settings) == before
        assert before.used == 6


class TestKindsOfShards:
    def test_captions_have_no_coin(self, tmp_path: Path) -> None:
        make_pairs(tmp_path, samples=5)
        found = ask(tmp_path)
        assert (found.rule, found.used, found.coin_drops) == ("caption", 5, 0.0)
        assert found.thresholds == []

    def test_given_placeholders_ignore_the_threshold(self, tmp_path: Path) -> None:
        pages = [
            make_page(n, [0, 2], similarity=0.0, alignment="given", source="placeholder")
            for n in range(4)
        ]
        write_pages(tmp_path, [pages], kind="custom")
        found = ask(tmp_path, min_image_bytes=0)
        assert (found.used, found.unsettled) == (4, 4)  # a table does not say `given`
        assert ask(tmp_path, min_image_bytes=0, exact=True).unsettled == 0

    def test_a_mixed_conversion_is_settled_by_reading(self, tmp_path: Path) -> None:
        pages: list[dict[str, Any] | bytes] = [
            make_page(0, [0, 2], similarity=0.1, alignment="given", source="placeholder"),
            make_page(1, [0, 2], similarity=0.15),
        ]
        write_pages(tmp_path, [pages], kind="custom")
        found = ask(tmp_path, min_image_bytes=0, exact=True)
        assert (found.used, found.dropped) == (1, {"below-similarity": 1})

    def test_shards_of_an_unfinished_conversion_are_left_out_by_name(self, tmp_path: Path) -> None:
        dataset = make_shard_of(tmp_path, make_document(0))
        second = Dataset(tmp_path / "more", [[make_document(1)]])
        second.folder.mkdir()
        second.write()
        (tmp_path / "000000001.tar").write_bytes(second.path().read_bytes())
        (tmp_path / "plan.json").write_text("{}")
        report = validate(
            Validate(shards=(str(dataset.folder),), forecast=True, workers=0, ignore=("S", "M"))
        )
        assert report.forecast is not None
        assert report.forecast.documents == 1
        assert report.forecast.unread == [
            f"{tmp_path}/000000001.tar: no sidecar, so its conversion did not finish"
        ]
        assert report.exit_code == 1


class TestRefusals:
    def test_tokens_need_a_tokenizer(self) -> None:
        with pytest.raises(UserError, match="--max-tokens: needs --tokenizer"):
            Validate(shards=("a",), forecast=True, max_tokens=64)

    def test_exact_needs_a_question(self) -> None:
        with pytest.raises(UserError, match="--exact: goes with --forecast or --peer"):
            Validate(shards=("a",), exact=True)

    def test_a_tokenizer_that_is_not_there(self, sample_shards: Path) -> None:
        with pytest.raises(UserError, match="tokenizer /nowhere"):
            ask(sample_shards, tokenizer="/nowhere")

    def test_a_threshold_in_percent(self, sample_shards: Path) -> None:
        with pytest.raises(UserError, match=r"did you mean 0\.24"):
            ask(sample_shards, min_similarity=24.0)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.matrix
def test_workers_count_the_same(sample_shards: Path) -> None:
    here = ask(sample_shards, exact=True)
    spec = Validate(shards=(str(sample_shards),), forecast=True, exact=True, workers=2)
    assert validate(spec).forecast == here


class TestPeer:
    def test_our_shards_pair_rightly_in_openflamingos_loader(self, sample_shards: Path) -> None:
        spec = Validate(shards=(str(sample_shards),), peer="openflamingo", exact=True, workers=0)
        found = validate(spec).peer
        assert found is not None
        assert (found.basis, found.looked_at, found.mispaired) == ("documents", 47, 0)
        assert found.looked_at == found.used + sum(found.dropped.values())

    def test_shards_in_another_order_do_not(self, tmp_path: Path) -> None:
        pages = [make_page(n, [2, 0]) for n in range(4)]
        for page in pages:
            for image in page["image_info"]:
                raw = base64.b64decode(image["image_base64"])
                image["image_base64"] = base64.b64encode(raw.ljust(12_000, b"\0")).decode()
        members = [(f"{n}.json", encode(page)) for n, page in enumerate(pages)]
        (tmp_path / "0.tar").write_bytes(make_tar(members))
        found = validate(Validate(shards=(str(tmp_path),), peer="openflamingo", workers=0)).peer
        assert found is not None
        assert (found.used, found.mispaired) == (4, 4)

    def test_captions_are_judged_too(self, tmp_path: Path) -> None:
        picture = make_image(1)
        members = [("a.jpg", picture), ("a.txt", b"A"), ("b.webp", picture), ("b.txt", b"B")]
        (tmp_path / "0.tar").write_bytes(make_tar(members))
        report = validate(Validate(shards=(str(tmp_path),), peer="openflamingo", workers=0))
        assert report.peer is not None
        assert (report.peer.rule, report.peer.used, report.peer.coin_drops) == ("caption", 1, 0.0)
        assert report.peer.dropped == {"picture-webp": 1}


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_captions_of_a_laion_conversion(
    tmp_path: Path, tokenizer: MediaTokenizer, layout: Any
) -> None:
    """From the tables, from a sample by offset, and from all samples: as the stream has them."""
    table = pa.table(
        {
            "jpg": [make_picture(n, 0) for n in range(6)],
            "caption": [f"Picture {n} of a page with a caption." for n in range(6)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    options = ConvertLaion(
        inputs=(str(tmp_path / "a.parquet"),),
        output=str(tmp_path / "out"),
        layout=layout,
        fetcher="none",
        workers=0,
        docs_per_shard=2,
    )
    assert convert_laion(options, quiet=True).tally.images == 6
    trained = Trained(tmp_path / "out", tokenizer)
    assert trained.documents == 6
    found = ask(tmp_path / "out", exact=True, tokenizer=TOKENIZER)
    assert (found.rule, found.used, found.images_used) == ("caption", 6, 6)
    assert found.tokens is not None
    assert found.tokens.total == trained.tokens
    assert ask(tmp_path / "out").used == 6
    few = ask(tmp_path / "out", tokenizer=TOKENIZER, sample_documents=4)
    assert (few.basis, few.used, few.unread) == ("sample", 4, [])
