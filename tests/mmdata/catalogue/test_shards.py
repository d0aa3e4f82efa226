"""Which shards a stream has, how many samples they hold, and of what kind."""

import json
import logging
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from mmdata.catalogue.find import find_shards
from mmdata.catalogue.shards import Shard, catalogue_shards, catalogue_stream, rule_by_manifests
from mmdata.errors import BadInputError, UserError
from mmdata.storage import files
from schemas.manifest import KINDS, Kind
from tests.flamingo.data.conftest import make_page, write_pages
from tests.shard_factory import Dataset, make_pairs, make_tar


def counts(*specs: object) -> list[int]:
    return [
        shard.num_samples for shard in catalogue_stream("s", [str(one) for one in specs]).shards
    ]


def test_folder_glob_range_and_list(pages: Dataset) -> None:
    everything = [7, 7, 0, 7, 7, 7]
    assert counts(pages.folder) == everything
    assert counts(pages.folder / "*.tar") == everything
    assert counts(pages.folder / "{000000000..000000002}.tar") == [7, 7, 0]
    assert counts(pages.path(3), pages.path(2)) == [7, 0]


def test_manifest_and_list(pages: Dataset, tmp_path: Path) -> None:
    assert counts(pages.folder / "manifest.json") == [7, 7, 0, 7, 7, 7]
    listed = tmp_path / "some.txt"
    listed.write_text(f"# two\npages/000000003.tar\n\n{pages.path(2)}\n")
    assert counts(listed) == [7, 0]
    listed.write_text("pages/none.tar\n")
    with pytest.raises(UserError, match=r"none\.tar: no such file"):
        catalogue_stream("s", [str(listed)])
    with pytest.raises(UserError, match="No such file"):
        catalogue_stream("s", [str(tmp_path / "other.txt")])


def test_thousands_of_shards_with_a_manifest_start_without_a_look_into_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 s to the first batch of 10,000 shards: what the manifest says is not read a second time."""
    pages = write_pages(tmp_path / "pages", [[make_page(0, [0])]])
    manifest = json.loads((pages.folder / "manifest.json").read_text())
    (row,) = manifest["shards"]
    manifest["shards"] = [row | {"shard": f"{n:09d}.tar"} for n in range(3000)]
    (pages.folder / "manifest.json").write_text(json.dumps(manifest))
    for number in range(1, 3000):
        os.link(pages.path(0), pages.path(number))
    opened = []

    def noted(path: Any, *more: Any, **named: Any) -> Any:
        opened.append(os.path.basename(path))
        return open(path, *more, **named)

    monkeypatch.setattr(files, "open", noted, raising=False)
    assert sum(counts(pages.folder)) == 3000
    assert opened == ["manifest.json"]


def test_counts_come_from_the_sidecar_or_the_tar(pages: Dataset) -> None:
    (pages.folder / "manifest.json").unlink()
    assert counts(pages.folder) == [7, 7, 0, 7, 7, 7]
    for sidecar in pages.folder.glob("0*.json"):
        sidecar.unlink()
    assert counts(pages.folder) == [7, 7, 0, 7, 7, 7]


def test_a_shard_that_was_not_committed_is_left_out(
    pages: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    (pages.folder / "manifest.json").unlink()
    (pages.folder / "plan.json").write_text("{}")
    pages.path(1, ".json").unlink()
    with caplog.at_level(logging.WARNING):
        assert counts(pages.folder) == [7, 0, 7, 7, 7]
    assert "000000001.tar: no sidecar" in caplog.text


def test_a_manifest_of_another_tool_says_nothing(tmp_path: Path) -> None:
    make_pairs(tmp_path, samples=2)
    (tmp_path / "manifest.json").write_text('{"shards": 3}')
    assert counts(tmp_path) == [2]


def test_a_damaged_manifest_is_refused(pages: Dataset) -> None:
    (pages.folder / "manifest.json").write_text('{"format_version": "1"}')
    with pytest.raises(BadInputError, match=r"manifest\.json"):
        catalogue_stream("s", [str(pages.folder)])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        catalogue_stream("mmc4", [str(tmp_path / "{0..4}.tar"), str(tmp_path)])
    text = str(error.value)
    assert text.startswith("stream mmc4: ")
    assert "0.tar: no such file" in text
    assert text.endswith("; and 3 more")


def test_no_shards_and_no_samples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no samples"):
        catalogue_stream("s", [])
    (tmp_path / "a.tar").write_bytes(bytes(1024))
    with pytest.raises(UserError, match="holds no samples"):
        catalogue_stream("s", [str(tmp_path)])


def test_a_shard_of_another_size_than_its_sidecar_says(pages: Dataset) -> None:
    with pages.path(4).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BadInputError, match=r"000000004\.tar: expected \d+ bytes"):
        catalogue_stream("s", [str(pages.folder)])


def test_a_command_and_a_stream_are_told_the_same(pages: Dataset) -> None:
    """Shards of the manifest, of a sidecar alone, of nothing but themselves, and left over."""
    names = sorted(path.name for path in pages.folder.glob("*.tar"))
    manifest = json.loads((pages.folder / "manifest.json").read_text())
    manifest["shards"] = manifest["shards"][:2]
    (pages.folder / "manifest.json").write_text(json.dumps(manifest))
    pages.path(3, ".json").unlink()
    (pages.folder / "plan.json").write_text("{}")
    (pages.folder / "other.tar").write_bytes(pages.path(4).read_bytes())
    of_stream = catalogue_stream("s", [str(pages.folder)])
    of_command = catalogue_shards(find_shards([str(pages.folder)]))
    assert of_command == of_stream
    assert of_stream.left_out == (str(pages.path(3)),)
    assert len(of_stream.shards) == len(names)
    assert Shard(str(pages.folder / "other.tar"), 7) in of_stream.shards


class TestRule:
    def rule(self, *specs: object) -> str | None:
        return catalogue_stream("s", [str(one) for one in specs]).rule()

    @pytest.mark.parametrize(
        ("kind", "rule"), [("mmc4", "interleaved"), ("custom", "interleaved"), ("laion", "caption")]
    )
    def test_by_the_manifest(self, kind: str, rule: str, tmp_path: Path) -> None:
        pages = write_pages(tmp_path, [[make_page(0, [0])]], kind=kind)
        assert self.rule(pages.folder) == rule

    def test_every_kind_of_conversion_has_one(self) -> None:
        assert set(KINDS) == set(get_args(Kind))

    def test_of_shards_that_may_be_to_come(self, tmp_path: Path) -> None:
        assert rule_by_manifests((str(tmp_path / "none"), "")) is None
        for kind, rule in (("mmc4", "interleaved"), ("laion", "caption")):
            pages = write_pages(tmp_path / kind, [[make_page(0, [0])]], kind=kind)
            assert rule_by_manifests((str(pages.folder),)) == rule
        assert rule_by_manifests((str(tmp_path / "mmc4"), str(tmp_path / "laion"))) is None
        (tmp_path / "mmc4" / "manifest.json").write_text('{"format_version": "1"}')
        assert rule_by_manifests((str(tmp_path / "mmc4" / "*.tar"),)) is None

    def test_by_the_first_sample(self, tmp_path: Path) -> None:
        assert self.rule(make_pairs(tmp_path / "pairs")) == "caption"
        for source, rule in (("mmc4", "interleaved"), ("laion", "caption")):
            page = make_page(0, [0], source=source)
            pages = write_pages(tmp_path / source, [[], [page]])
            (pages.folder / "manifest.json").unlink()
            assert self.rule(pages.folder) == rule

    def test_neither_tells(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(make_tar([("a.json", b'{"some": "thing"}')]))
        assert self.rule(tmp_path) is None
        for kind in ("mmc4", "laion"):
            write_pages(tmp_path / kind, [[make_page(0, [0])]], kind=kind)
        assert self.rule(tmp_path / "mmc4", tmp_path / "laion") is None
