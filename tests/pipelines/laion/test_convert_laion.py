"""convert-laion: lists of pairs in, checked shards of either layout out, no row unaccounted for."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.errors import BadInputError, UserError
from pipelines.conversion.result import ConversionResult
from pipelines.laion.run import convert_laion
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import (
    cli,
    documents_of,
    image_bytes,
    manifest_of,
    picture,
    rejects_of,
    run_cli,
    snapshot,
)
from tests.laion_factory import options, outcomes, pairs, rows, write
from tests.web import Web, serve


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serve() as running:
        yield running


def convert(source: Any, output: Path, **more: Any) -> ConversionResult:
    """Convert and validate; the counts of the result add up."""
    result = convert_laion(options(source, output, **more), quiet=True)
    assert result.exit_code == 0, result.failures
    assert result.complete
    report = validate(Validate(shards=(str(output),), workers=0))
    assert report.exit_code == 0, report
    tally = result.tally
    assert tally.records == tally.documents + sum(tally.documents_dropped.values())
    assert tally.images_listed == tally.images + sum(tally.images_dropped.values())
    return result


class TestLayouts:
    def test_interleaved_documents_hold_one_text_and_one_image(
        self, web: Web, tmp_path: Path
    ) -> None:
        convert(write(tmp_path / "a.parquet", rows(web, 5)), tmp_path / "out")
        documents = documents_of(tmp_path / "out")
        assert list(documents) == [f"{k:012d}" for k in range(5)]
        document = documents["000000000003"]
        (info,) = document["image_info"]
        assert document["text_list"] == ["Picture 3, ü."]
        assert document["similarity_matrix"] == [[0.23]]
        assert (document["similarity_source"], document["alignment"]) == ("laion", "given")
        assert (info["matched_text_index"], info["matched_sim"]) == (0, 0.23)
        assert info["raw_url"] == web.url("/ok/3.jpg")
        assert info["image_name"] == "3.jpg"
        assert image_bytes(info) == picture(3)
        assert (document["SAMPLE_ID"], document["NSFW"]) == (1003, "UNLIKELY")
        assert manifest_of(tmp_path / "out")["kind"] == "laion"

    def test_pairs_are_img2datasets_files(self, web: Web, tmp_path: Path) -> None:
        table = [*rows(web, 2), *rows(web, 4, path="/ok/{}.png")[2:]]
        convert(write(tmp_path / "a.parquet", table), tmp_path / "out", layout="pairs")
        samples = pairs(tmp_path / "out")
        assert [list(sample) for sample in samples.values()] == [
            ["jpg", "txt", "json"], ["jpg", "txt", "json"],
            ["png", "txt", "json"], ["png", "txt", "json"],
        ]  # fmt: skip
        sample = samples["000000000001"]
        assert sample["jpg"] == picture(1)
        assert sample["txt"].decode() == "Picture 1, ü."
        metadata = json.loads(sample["json"])
        assert metadata["key"] == "000000000001"
        assert metadata["caption"] == "Picture 1, ü."
        assert metadata["url"] == web.url("/ok/1.jpg")
        assert (metadata["status"], metadata["error_message"]) == ("success", None)
        assert (metadata["width"], metadata["height"]) == (48, 36)
        assert (metadata["original_width"], metadata["original_height"]) == (48, 36)
        assert (metadata["similarity"], metadata["similarity_source"]) == (0.21, "laion")
        assert metadata["SAMPLE_ID"] == 1001
        assert manifest_of(tmp_path / "out")["layout"] == "pairs"

    def test_a_shard_of_pairs_holds_ten_times_as_many(self, tmp_path: Path) -> None:
        assert options(tmp_path, tmp_path).docs_per_shard == 1000
        assert options(tmp_path, tmp_path, layout="pairs").docs_per_shard == 10_000
        assert options(tmp_path, tmp_path, layout="pairs", docs_per_shard=5).docs_per_shard == 5

    @pytest.mark.parametrize("layout", ["interleaved", "pairs"])
    def test_bytes_depend_on_rows_and_answers_alone(
        self, web: Web, tmp_path: Path, layout: str
    ) -> None:
        source = write(tmp_path / "a.parquet", rows(web, 12), row_group_size=5)
        for name in ("one", "two"):
            convert(source, tmp_path / name, layout=layout, docs_per_shard=5)
        first, second = (
            {k: v for k, v in snapshot(tmp_path / name).items() if "outcomes" not in k}
            for name in ("one", "two")
        )
        assert first == second

    @pytest.mark.parametrize("layout", ["interleaved", "pairs"])
    def test_exact_duplicates_are_dropped(self, web: Web, tmp_path: Path, layout: str) -> None:
        table = [*rows(web, 3), *rows(web, 3)]
        source = write(tmp_path / "a.parquet", table)
        more = {"layout": layout, "dedupe": "exact", "docs_per_shard": 2}
        result = convert(source, tmp_path / "out", **more)
        assert result.tally.documents_dropped == {"duplicate-document": 3}
        assert len(pairs(tmp_path / "out")) == 3


class TestInputs:
    @pytest.mark.parametrize(
        "name", ["a.parquet", "a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.jsonl.gz"]
    )
    def test_lists_of_urls(self, web: Web, tmp_path: Path, name: str) -> None:
        convert(write(tmp_path / name, rows(web, 4)), tmp_path / "out")
        documents = list(documents_of(tmp_path / "out").values())
        assert [document["text_list"] for document in documents] == [
            [f"Picture {k}, ü."] for k in range(4)
        ]
        assert [document["similarity_matrix"] for document in documents] == [
            [[0.2]], [[0.21]], [[0.22]], [[0.23]]
        ]  # fmt: skip
        assert [image_bytes(d["image_info"][0]) for d in documents] == [
            picture(k) for k in range(4)
        ]

    def test_columns_by_other_names(self, web: Web, tmp_path: Path) -> None:
        table = [{"link": row["URL"], "alt": row["TEXT"], "score": 0.5} for row in rows(web, 2)]
        source = write(tmp_path / "a.parquet", table)
        with pytest.raises(BadInputError, match=r"no column of captions.*got link, alt, score"):
            convert_laion(options(source, tmp_path / "out"), quiet=True)
        assert not (tmp_path / "out").exists()
        more = {"url_col": "link", "caption_col": "alt", "similarity_col": "score"}
        assert convert(source, tmp_path / "out", **more).tally.images == 2
        with pytest.raises(BadInputError, match=r"no column 'x' \(--url-col\)"):
            convert_laion(options(source, tmp_path / "b", caption_col="alt", url_col="x"))
        with pytest.raises(BadInputError, match=r"'lnik' \(--url-col\); did you mean link\?"):
            convert_laion(options(source, tmp_path / "b", caption_col="alt", url_col="lnik"))
        assert not (tmp_path / "b").exists()

    @pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
    @pytest.mark.parametrize("layout", ["interleaved", "pairs"])
    def test_every_other_column_is_carried_along(
        self, web: Web, tmp_path: Path, layout: str, name: str
    ) -> None:
        """COYO's names, a page's URL beside the picture's, and names that samples use too."""
        more = {"id": "841", "url": "http://page.example/1", "alignment": "left", "sha256": "x"}
        convert(write(tmp_path / name, rows(web, 1, **more)), tmp_path / "out", layout=layout)
        if layout == "pairs":
            told = json.loads(pairs(tmp_path / "out")["000000000000"]["json"])
            expected = {"id": "841", "alignment": "left", "source_sha256": "x"}
            expected |= {"url": web.url("/ok/0.jpg"), "source_url": "http://page.example/1"}
        else:
            told = documents_of(tmp_path / "out")["000000000000"]
            expected = {"id": "841", "source_alignment": "left", "sha256": "x"}
            expected |= {"url": "http://page.example/1", "alignment": "given"}
        assert {key: told[key] for key in expected} == expected
        assert not {"source_width", "source_similarity", "source_URL"} & told.keys()

    @pytest.mark.parametrize(
        ("name", "by"),
        [
            *(("a.parquet", by) for by in ("id", "url", "URL", "alignment", "similarity", "m.s")),
            *(("a.csv", by) for by in ("id", "TEXT", "m.s")),
            *(("a.jsonl", by) for by in ("id", "URL", "m.s")),
        ],
    )
    def test_splits_are_by_any_column(self, web: Web, tmp_path: Path, name: str, by: str) -> None:
        """Used for something else, or of a name that samples have too, or inside another."""
        table = rows(web, 24)
        for number, row in enumerate(table):
            column = by.partition(".")[0]
            row[column] = {"URL": web.url(f"/ok/{number // 2}.jpg")}.get(by, number // 2 / 10)
            if by == "TEXT":
                row[by] = f"text {number // 2}"
            if by == "m.s" and not name.endswith(".csv"):
                row["m"] = {"s": number // 2}
            elif by == "m.s":
                row["m.s"] = row.pop("m")
        source = write(tmp_path / name, table)
        more = {"split": "train=0.5,val=0.5", "split_by": by}
        result = convert_laion(options(source, tmp_path / "out", **more), quiet=True)
        assert result.complete
        found = [
            {int(key) // 2 for key in documents_of(tmp_path / "out" / part)}
            for part in ("train", "val")
        ]
        assert all(found)
        assert not found[0] & found[1]
        groups = [manifest_of(tmp_path / "out" / part)["groups"] for part in ("train", "val")]
        assert sum(one["groups"] for one in groups) == 12

    @pytest.mark.parametrize("form", ["bytes", "struct"])
    def test_images_in_parquet_need_no_network(self, tmp_path: Path, form: str) -> None:
        images: list[Any] = [picture(k) for k in range(3)] + [None]
        if form == "struct":
            images = [{"bytes": data, "path": None} for data in images]
        table = pa.table({"image": images, "caption": [f"c{k}" for k in range(4)]})
        pq.write_table(table, tmp_path / "a.parquet")
        more = {"fetcher": "none", "allow_private_hosts": False}
        result = convert(tmp_path / "a.parquet", tmp_path / "out", **more)
        assert result.tally.images_dropped == {"missing": 1}
        documents = list(documents_of(tmp_path / "out").values())
        assert [image_bytes(d["image_info"][0]) for d in documents] == images_of(images[:3])
        assert documents[0]["similarity_source"] == "placeholder"
        assert documents[0]["similarity_matrix"] == [[1.0]]
        assert outcomes(tmp_path / "out") == []

    def test_urls_are_refused_where_nothing_may_be_fetched(self, web: Web, tmp_path: Path) -> None:
        source = write(tmp_path / "a.parquet", rows(web, 2))
        with pytest.raises(BadInputError, match="holds URLs, no images"):
            convert_laion(options(source, tmp_path / "out", fetcher="none"), quiet=True)

    def test_our_pairs_and_img2datasets_tars_are_inputs(self, web: Web, tmp_path: Path) -> None:
        convert(write(tmp_path / "a.parquet", rows(web, 3)), tmp_path / "p", layout="pairs")
        (tmp_path / "p" / "000000000.parquet").write_bytes(b"what img2dataset leaves beside")
        convert(tmp_path / "p", tmp_path / "out", fetcher="none")
        documents = list(documents_of(tmp_path / "out").values())
        assert [d["text_list"][0] for d in documents] == [f"Picture {k}, ü." for k in range(3)]
        assert [d["similarity_matrix"] for d in documents] == [[[0.2]], [[0.21]], [[0.22]]]
        assert [d["image_info"][0]["raw_url"] for d in documents] == [
            web.url(f"/ok/{k}.jpg") for k in range(3)
        ]

    def test_img2datasets_files_are_an_input(self, tmp_path: Path) -> None:
        (tmp_path / "in" / "00000").mkdir(parents=True)
        (tmp_path / "in" / "00000" / "000000000.jpg").write_bytes(picture(1))
        table = [
            {"key": "000000000", "url": "http://x/1.jpg", "caption": "a", "status": "success"},
            {"key": "000000001", "url": "http://x/2.jpg", "caption": "b", "status": "failed"},
        ]
        write(tmp_path / "in" / "00000.parquet", table)
        result = convert(tmp_path / "in", tmp_path / "out", fetcher="none")
        assert result.tally.images_dropped == {"missing": 1}
        (document,) = documents_of(tmp_path / "out").values()
        assert (document["text_list"], image_bytes(document["image_info"][0])) == (
            ["a"], picture(1)
        )  # fmt: skip

    def test_long_row_groups_are_cut_and_short_ones_put_together(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mmdata.sources import laion_parquet

        images = [picture(k) for k in range(20)]
        table = pa.table({"bytes": images, "text": [f"c{k}" for k in range(20)]})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
        pq.write_table(table, tmp_path / "b.parquet", row_group_size=20)
        monkeypatch.setattr(laion_parquet, "SEGMENT_ROWS", 6)
        monkeypatch.setattr(laion_parquet, "LONGEST_ROWS", 8)
        spans = {
            name: [(s.start, s.end) for s in laion_parquet.parquet_segments(str(tmp_path / name))]
            for name in ("a.parquet", "b.parquet")
        }
        assert spans["a.parquet"] == [(0, 6), (6, 12), (12, 18), (18, 20)]
        assert spans["b.parquet"] == [(0, 8), (8, 16), (16, 20)]
        for name in ("a", "b"):
            convert(tmp_path / f"{name}.parquet", tmp_path / name, fetcher="none")
            documents = list(documents_of(tmp_path / name).values())
            assert [image_bytes(d["image_info"][0]) for d in documents] == images


def images_of(values: list[Any]) -> list[bytes]:
    return [value["bytes"] if isinstance(value, dict) else value for value in values]


class TestFilters:
    @pytest.mark.parametrize(
        ("given", "kept", "reason"),
        [
            ({"min_caption_similarity": 0.25}, [5, 6, 7, 8, 9], "low-caption-similarity"),
            ({"max_punsafe": 0.3}, [0, 1, 2, 3], "unsafe"),
            ({"max_pwatermark": 0.35}, [7, 8, 9], "watermark"),
            ({"nsfw": ("unlikely", "UNSURE")}, [0, 1, 3, 4, 6, 7, 9], "nsfw"),
            ({"min_size": 40}, [], "listed-too-small"),
            ({"max_aspect": 1.2}, [], "listed-bad-aspect"),
        ],
    )
    def test_nothing_is_asked_for_rows_that_do_not_pass(
        self, web: Web, tmp_path: Path, given: dict[str, Any], kept: list[int], reason: str
    ) -> None:
        before = sum(web.asked().values())
        source = write(tmp_path / "a.parquet", rows(web, 10))
        result = convert(source, tmp_path / "out", **given)
        assert [int(key) for key in documents_of(tmp_path / "out")] == kept
        assert result.tally.documents_dropped == {reason: 10 - len(kept)}
        assert sum(web.asked().values()) - before == len(kept)
        dropped = [row for row in outcomes(tmp_path / "out") if row["status"] == "not-asked"]
        assert {row["result"] for row in dropped} <= {reason}

    def test_a_filter_needs_its_column(self, web: Web, tmp_path: Path) -> None:
        table = [{"URL": row["URL"], "TEXT": row["TEXT"]} for row in rows(web, 2)]
        source = write(tmp_path / "a.parquet", table)
        with pytest.raises(BadInputError, match="--max-punsafe: there is no column punsafe"):
            convert_laion(options(source, tmp_path / "out", max_punsafe=0.5), quiet=True)

    def test_a_size_is_asked_of_the_image_too(self, web: Web, tmp_path: Path) -> None:
        source = write(tmp_path / "a.parquet", rows(web, 2, WIDTH=900, HEIGHT=900))
        result = convert(source, tmp_path / "out", min_size=100)
        assert result.tally.images_dropped == {"too-small": 2}

    def test_images_below_a_similarity_are_dropped(self, web: Web, tmp_path: Path) -> None:
        source = write(tmp_path / "a.parquet", rows(web, 10))
        for layout in ("interleaved", "pairs"):
            result = convert(source, tmp_path / layout, min_similarity=0.25, layout=layout)
            assert result.tally.images_dropped == {"low-similarity": 5}


class TestHostileWeb:
    def test_every_row_has_an_outcome_and_a_reason(self, web: Web, tmp_path: Path) -> None:
        paths = {
            "/ok/1.jpg": ("ok", "kept"),
            "/404": ("http-error", "not-fetched"),
            "/html": ("ok", "not-an-image"),
            "/empty": ("ok", "truncated"),
            "/bomb.png": ("ok", "too-large"),
            "/endless": ("too-large", "too-large"),
            "/drip": ("timeout", "not-fetched"),
            "/loop": ("redirects", "not-fetched"),
            "/noai/noai": ("noai", "noai"),
            "/gzip/2.jpg": ("ok", "kept"),
            "/text/3.jpg": ("ok", "kept"),
            "/to?http://user:x@example.org/": ("redirects", "not-fetched"),
        }
        table = [{"URL": web.url(path), "TEXT": "a"} for path in paths]
        strange = {
            "file:///etc/passwd": ("bad-url", "unsafe-url"),
            "ftp://127.0.0.1/x.jpg": ("bad-url", "unsafe-url"),
            "javascript:alert(1)": ("bad-url", "unsafe-url"),
        }
        table += [{"URL": url, "TEXT": "a"} for url in strange]
        source = write(tmp_path / "a.parquet", table)
        result = convert(source, tmp_path / "out", timeout=8.0, max_bytes=2_000_000)
        found = outcomes(tmp_path / "out")
        expected = list(paths.values()) + list(strange.values())
        assert [(row["status"], row["result"]) for row in found] == expected
        assert [row["url"] for row in found] == [row["URL"] for row in table]
        kept = [row for row in found if row["result"] == "kept"]
        assert all(row["bytes"] and len(row["sha256"]) == 64 and row["seconds"] for row in kept)
        assert result.tally.documents_dropped == {"no-images-left": 12}
        counts = Counter(reason for _, reason in expected if reason != "kept")
        assert result.tally.images_dropped == dict(sorted(counts.items()))

    def test_a_person_is_told_what_to_do(self, web: Web, tmp_path: Path) -> None:
        source = write(tmp_path / "a.parquet", rows(web, 2, path="/404?{}"))
        done = run_cli(
            [*cli("convert-laion"), str(source), "--output", str(tmp_path / "out"),
             "--allow-private-hosts"]
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "2 images were not fetched: *.outcomes.parquet says why, --retry-" in done.stdout

    def test_private_addresses_are_refused_unless_allowed(self, web: Web, tmp_path: Path) -> None:
        before = sum(web.asked().values())
        source = write(tmp_path / "a.parquet", rows(web, 3))
        result = convert(source, tmp_path / "out", allow_private_hosts=False)
        assert result.tally.images_dropped == {"unsafe-url": 3}
        assert {row["status"] for row in outcomes(tmp_path / "out")} == {"private-address"}
        assert sum(web.asked().values()) == before


class TestHostileTables:
    """The files of a collection of broken lists, made here."""

    def test_rows(self, web: Web, tmp_path: Path) -> None:
        url = web.url("/ok/1.jpg")
        table = pa.table(
            {
                "URL": [url, url, url, url, url, None, "", url],
                "TEXT": pa.array(
                    [b"bytes", b"\xff\xfe", None, b"", b"  ", b"a", b"b", b"x" * 400_000]
                ),
                "WIDTH": ["400", None, "x", "1", "1", "1", "1", "1"],
                "HEIGHT": [300.0, float("nan"), None, 1.0, 1.0, 1.0, 1.0, 1.0],
                "similarity": ["0.3", "x", None, "", "7", "1", "1", "x"],
                "meta": [{"k": [1, float("inf")]}] * 8,
                "text_list": ["not ours"] * 8,
            }
        )
        pq.write_table(table, tmp_path / "a.parquet")
        result = convert(tmp_path / "a.parquet", tmp_path / "out")
        assert result.tally.documents_dropped == {"no-text": 3, "no-url": 2, "not-utf8": 1}
        assert result.tally.notes == {"bad-similarity": 1}
        first, last = documents_of(tmp_path / "out").values()
        assert (first["text_list"], first["similarity_matrix"]) == (["bytes"], [[0.3]])
        assert first["meta"] == {"k": [1, None]}
        assert (last["similarity_matrix"], last["similarity_source"]) == ([[1.0]], "placeholder")
        assert {line["key"] for line in rejects_of(tmp_path / "out")} == {
            f"{k:012d}" for k in (1, 2, 3, 4, 5, 6, 7)
        }

    def test_text_that_is_not_utf8_in_a_column_of_strings(self, web: Web, tmp_path: Path) -> None:
        texts = pa.array([b"fine", b"\xff"]).view(pa.string())
        others = pa.array([b"\xff", b"fine"]).view(pa.string())
        urls = [web.url("/ok/1.jpg")] * 2
        pq.write_table(pa.table({"URL": urls, "TEXT": texts, "x": others}), tmp_path / "a.parquet")
        result = convert(tmp_path / "a.parquet", tmp_path / "out")
        assert result.tally.documents_dropped == {"not-utf8": 1}

    def test_one_url_many_times(self, web: Web, tmp_path: Path) -> None:
        source = write(tmp_path / "a.parquet", rows(web, 1) * 6)
        assert convert(source, tmp_path / "out").tally.documents == 6

    @pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
    def test_no_rows(self, tmp_path: Path, name: str) -> None:
        if name.endswith("csv"):
            (tmp_path / name).write_text("URL,TEXT\n")
        else:
            pq.write_table(
                pa.table({"URL": pa.array([], pa.string()), "TEXT": []}), tmp_path / name
            )
        result = convert_laion(options(tmp_path / name, tmp_path / "out"), quiet=True)
        assert (result.exit_code, result.tally.records, result.plan.num_shards) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("name", "data", "problem"),
        [
            ("cut.parquet", None, "damaged or no parquet"),
            ("csv.parquet", b"URL,TEXT\nhttp://x/,a\n", "damaged or no parquet"),
            ("zero.parquet", b"", "damaged or no parquet"),
            ("zero.csv", b"", "the file is empty"),
            ("columns.csv", b"a,b\n1,2\n", "no column of captions"),
            ("twice.csv", b"URL,URL\n1,2\n", "does not name each column once"),
            ("packed.csv", b"\x1f\x8b\x08\x00", "is not what its name says"),
            ("cut.csv.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "damaged"),
            ("zero.tar", b"", "zero.tar"),
            ("a.txt", b"http://x/", "expected a file that ends in"),
        ],
    )
    def test_files_that_cannot_be_used(
        self, web: Web, tmp_path: Path, name: str, data: bytes | None, problem: str
    ) -> None:
        if data is None:
            data = write(tmp_path / "whole.parquet", rows(web, 50)).read_bytes()[:-100]
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInputError, match=problem):
            convert_laion(options(tmp_path / name, tmp_path / "out"), quiet=True)
        assert not (tmp_path / "out").exists()

    def test_broken_lines(self, web: Web, tmp_path: Path) -> None:
        good = {"url": web.url("/ok/1.jpg"), "caption": "a"}
        lines = [json.dumps(good), "{", "[1]", '{"other": 1}', '{"caption": "a", "url": 5}', ""]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        result = convert(tmp_path / "a.jsonl", tmp_path / "out")
        assert result.tally.documents_dropped == {
            "bad-json": 1, "bad-schema": 2, "not-an-object": 1
        }  # fmt: skip
        text = f'URL,TEXT\n"{good["url"]}","two\nlines, ""quoted"""\n{good["url"]}\n\n'
        (tmp_path / "b.csv").write_text(text)
        result = convert(tmp_path / "b.csv", tmp_path / "b")
        assert result.tally.documents_dropped == {"bad-schema": 1}
        (document,) = documents_of(tmp_path / "b").values()
        assert document["text_list"] == ['two\nlines, "quoted"']


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"timeout": 0.0}, "--timeout 0: expected seconds"),
            ({"timeout": float("nan")}, "--timeout nan: expected seconds"),
            ({"per_host": 0}, "--per-host 0: expected at least 1"),
            ({"user_agent": "a\r\nb: c"}, "--user-agent .*: expected printable ASCII"),
            ({"refresh_missing": True}, "use --retry-failed"),
            ({"layout": "pairs", "keep_text_only": True}, "a pair without an image is none"),
            ({"max_images": 2}, "a pair has one image"),
            ({"retry_failed": True, "dedupe": "exact"}, "--retry-failed and --dedupe"),
            ({"retry_failed": True, "overwrite": True}, "--retry-failed: needs shards"),
            ({"layout": "other"}, "--layout other: expected interleaved, pairs"),
            ({"nsfw": "UNLIKELY"}, "expected a list or tuple"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, tmp_path: Path, given: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            options(tmp_path, tmp_path, **given)
