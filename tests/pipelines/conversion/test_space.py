"""A conversion does not start when the disk cannot hold what it will write."""

from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import UserError
from pipelines.conversion.plan import ConversionPlan
from pipelines.conversion.space import check_space, human_bytes
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import Corpus, make_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path, records=20)


def plan_of(corpus: Corpus, tmp_path: Path) -> ConversionPlan:
    options = corpus.options(tmp_path / "out", dry_run=True, docs_per_shard=2)
    return convert_mmc4(options, quiet=True).plan


def set_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    usage: Any = type("Usage", (), {"free": free})
    monkeypatch.setattr("pipelines.conversion.space.shutil.disk_usage", lambda folder: usage)


def test_the_estimate_is_near_what_is_written(corpus: Corpus, tmp_path: Path) -> None:
    plan = plan_of(corpus, tmp_path)
    convert_mmc4(corpus.options(tmp_path / "out", docs_per_shard=2), quiet=True)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    assert 0.9 * written < plan.estimate().write_bytes < 2 * written


def test_what_just_fits_is_let_through(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(corpus, tmp_path)
    wanted = plan.estimate().write_bytes
    set_free(monkeypatch, wanted)
    check_space(plan, str(tmp_path), plan.num_shards)
    set_free(monkeypatch, wanted - 1)
    with pytest.raises(UserError) as caught:
        check_space(plan, str(tmp_path), plan.num_shards)
    assert f"about {human_bytes(wanted)} are to be written" in str(caught.value)
    assert f"{human_bytes(wanted - 1)} are free" in str(caught.value)
    assert "--ignore-free-space" in str(caught.value)


def test_only_what_is_left_to_write_needs_room(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(corpus, tmp_path)
    set_free(monkeypatch, plan.estimate().write_bytes / 2)
    check_space(plan, str(tmp_path), plan.num_shards // 2)
    check_space(plan, str(tmp_path), 0)
    with pytest.raises(UserError):
        check_space(plan, str(tmp_path), plan.num_shards // 2 + 1)


def test_ignore_free_space_starts_all_the_same(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free(monkeypatch, 0)
    with pytest.raises(UserError, match="are to be written"):
        convert_mmc4(corpus.options(tmp_path / "out"), quiet=True)
    assert convert_mmc4(
        corpus.options(tmp_path / "out", ignore_free_space=True), quiet=True
    ).complete
    set_free(monkeypatch, 0)  # and what is done needs none
    assert convert_mmc4(corpus.options(tmp_path / "out"), quiet=True).complete


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2.5e9, "2.5 GB"),
     (7e15, "7000.0 TB")],
)  # fmt: skip
def test_bytes_for_people(number: float, text: str) -> None:
    assert human_bytes(number) == text
