"""align as a whole: CLIP's numbers in the shards, equal bytes, and nothing else changed."""

import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.alignment import assign, assigned_total
from mmdata.errors import BadInputError, UserError
from pipelines.align.options import Align
from pipelines.align.run import align
from pipelines.clip.model import ClipScorer
from pipelines.conversion.result import ConversionResult
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.clip_factory import make_clip
from tests.corpus import (
    check_nothing_half_written,
    cli,
    document,
    documents_of,
    environment,
    image_bytes,
    leftovers,
    make_corpus,
    manifest_of,
    one_file,
    picture,
    rejects_of,
    run_cli,
    snapshot,
)
from tests.shard_factory import make_document, make_shard_of

pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards: of 24 records some are broken and some images missing."""
    folder = tmp_path_factory.mktemp("shards")
    corpus = make_corpus(folder / "in", records=24, images=3)
    convert_mmc4(corpus.options(folder / "out", docs_per_shard=6), quiet=True)
    return folder / "out"


@pytest.fixture(scope="module")
def reference(shards: Path, clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference") / "out"
    run(shards, output, clip)
    return output


def run(shards: Path | str, output: Path, clip: str, **more: Any) -> ConversionResult:
    given = {"shards": (str(shards),), "output": str(output), "clip_model": clip, "workers": 0}
    return align(Align(**(given | {"clip_batch_size": 4} | more)), quiet=True)


def command(shards: Path, output: Path, clip: str, *more: str) -> list[str]:
    return [*cli("align"), str(shards), "--output", str(output), "--clip-model", clip,
            "--clip-batch-size", "4", *more]  # fmt: skip


def findings(folder: Path) -> list[str]:
    report = validate(Validate(shards=(str(folder),), workers=0))
    return [f"{found.code} {found.expected} {found.got}" for found in report.findings]


def test_the_numbers_are_those_of_the_scorer(shards: Path, reference: Path, clip: str) -> None:
    scorer = ClipScorer(clip, batch_size=4)
    before, after = documents_of(shards), documents_of(reference)
    assert list(before) == list(after)
    moved = 0
    for key, sample in after.items():
        pictures = [image_bytes(info) for info in sample["image_info"]]
        matrix = scorer.similarity(pictures, sample["text_list"])
        assert sample["similarity_matrix"] == matrix.tolist()
        assert sample["similarity_source"] == scorer.spec.source
        matched = [info["matched_text_index"] for info in sample["image_info"]]
        assert matched == sorted(matched)
        best = assigned_total(matrix, assign(matrix))
        assert assigned_total(matrix, matched) == pytest.approx(best, abs=1e-6)
        for row, info in enumerate(sample["image_info"]):
            assert info["matched_sim"] == matrix[row, info["matched_text_index"]]
        moved += matched != [i["matched_text_index"] for i in before[key]["image_info"]]
    assert moved > 0


def test_groups_stay_in_the_tables(clip: str, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "in", records=4)
    convert_mmc4(corpus.options(tmp_path / "out", split_by="url"), quiet=True)
    assert run(tmp_path / "out", tmp_path / "aligned", clip).complete
    groups = manifest_of(tmp_path / "out")["groups"]
    assert groups["groups"] > 1
    assert manifest_of(tmp_path / "aligned")["groups"] == groups
    assert findings(tmp_path / "aligned") == []


def test_nothing_else_changes(shards: Path, reference: Path) -> None:
    computed = {"similarity_matrix", "similarity_source", "image_info"}
    for key, sample in documents_of(reference).items():
        old = documents_of(shards)[key]
        assert list(sample) == list(old)
        assert all(sample[name] == old[name] for name in old.keys() - computed)
        for info in sample["image_info"]:
            (twin,) = [i for i in old["image_info"] if i["image_name"] == info["image_name"]]
            assert list(info) == list(twin)
            changed = {name for name in info if info[name] != twin[name]}
            assert changed <= {"matched_text_index", "matched_sim"}
    assert rejects_of(reference) == rejects_of(shards) != []
    old, new = manifest_of(shards), manifest_of(reference)
    assert new["totals"] == old["totals"]
    assert (new["kind"], new["layout"]) == (old["kind"], old["layout"])
    assert new["options"]["aligned"] == old["fingerprint"]
    for name in ("000000000.json", "000000003.json"):
        old, new = (json.loads((folder / name).read_text()) for folder in (shards, reference))
        for column in ("shard", "source", "first_ordinal", "tally", "kind"):
            assert old[column] == new[column]


def test_the_output_is_clean(reference: Path) -> None:
    assert findings(reference) == []


def test_again_it_keeps_all_and_overwrites_when_told(
    shards: Path, reference: Path, clip: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    result = run(shards, output, clip)
    assert (result.shards_written, result.shards_kept, result.complete) == (0, 4, True)
    with pytest.raises(UserError, match=r"holds another conversion.*clip_batch_size: was 4, is 3"):
        run(shards, output, clip, clip_batch_size=3)
    (output / "000000002.json").unlink()
    (output / "manifest.json").unlink()
    result = run(shards, output, clip)
    assert (result.shards_written, result.shards_kept) == (1, 3)
    assert snapshot(output) == snapshot(reference)
    assert run(shards, output, clip, clip_batch_size=3, overwrite=True).shards_written == 4


def test_where_shards_and_model_lie_makes_no_difference(
    shards: Path, reference: Path, tmp_path: Path
) -> None:
    shutil.copytree(shards, tmp_path / "elsewhere")
    moved = make_clip(tmp_path / "models" / "tiny")
    run(tmp_path / "elsewhere" / "0*.tar", tmp_path / "out", moved)
    assert snapshot(tmp_path / "out") == snapshot(reference)


def test_other_weights_are_another_conversion(
    shards: Path, reference: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    with pytest.raises(UserError, match="option clip_weights_sha256: was"):
        run(shards, output, make_clip(tmp_path / "models" / "tiny", seed=5))


def test_given_alignment_is_kept_and_only_filled_in(clip: str, tmp_path: Path) -> None:
    documents = []
    for seed in range(3):
        sample = make_document(seed, images=3, sentences=4)
        for info in sample["image_info"]:  # two at one sentence: no assignment would do that
            info["matched_text_index"] = 2
        for row, info in enumerate(sample["image_info"]):
            info["matched_sim"] = sample["similarity_matrix"][row][2]
        documents.append(sample | {"alignment": "given", "similarity_source": "placeholder"})
    make_shard_of(tmp_path / "in", *documents)
    assert findings(tmp_path / "in") == []
    run(tmp_path / "in", tmp_path / "out", clip, min_similarity=0.99)
    assert findings(tmp_path / "out") == []
    scorer = ClipScorer(clip, batch_size=4)
    before = list(documents_of(tmp_path / "in").values())
    for old, sample in zip(before, documents_of(tmp_path / "out").values(), strict=True):
        assert sample["alignment"] == "given"
        names = [[info["image_name"] for info in one["image_info"]] for one in (old, sample)]
        assert names[0] == names[1]
        assert {info["matched_text_index"] for info in sample["image_info"]} == {2}
        matrix = scorer.similarity(
            [image_bytes(info) for info in sample["image_info"]], sample["text_list"]
        )
        assert sample["similarity_matrix"] == matrix.tolist()
        assert [info["matched_sim"] for info in sample["image_info"]] == matrix[:, 2].tolist()


def test_min_similarity_applies_to_the_new_numbers(
    shards: Path, reference: Path, clip: str, tmp_path: Path
) -> None:
    values = [
        info["matched_sim"]
        for one in documents_of(reference).values()
        for info in one["image_info"]
    ]
    threshold = float(np.median(values))
    result = run(shards, tmp_path / "out", clip, min_similarity=threshold)
    kept = [i for one in documents_of(tmp_path / "out").values() for i in one["image_info"]]
    assert 0 < len(kept) < len(values)
    assert all(info["matched_sim"] >= threshold for info in kept)
    assert result.tally.images_dropped["low-similarity"] > 0
    assert findings(tmp_path / "out") == []


@pytest.mark.parametrize("keep", [False, True])
def test_documents_that_lose_all_images(
    shards: Path, clip: str, keep: bool, tmp_path: Path
) -> None:
    before = manifest_of(shards)["totals"]
    result = run(shards, tmp_path / "out", clip, min_similarity=1.0, keep_text_only=keep)
    assert findings(tmp_path / "out") == []
    if keep:
        assert result.tally.documents == before["documents"]
        assert all(
            one["similarity_matrix"] == [] for one in documents_of(tmp_path / "out").values()
        )
        run(tmp_path / "out", tmp_path / "again", clip)  # nothing to score, nothing to drop
        assert len(documents_of(tmp_path / "again")) == before["documents"]
        assert findings(tmp_path / "again") == []
    else:
        assert result.tally.documents == 0
        assert result.tally.documents_dropped["no-images-left"] == before["documents"]


def test_remarks_go_with_the_document_that_is_dropped(clip: str, tmp_path: Path) -> None:
    record = document(1, images=["ok0.jpg"])
    record["image_info"][0]["matched_text_index"] = 99
    corpus = one_file(tmp_path / "c", [record])
    convert_mmc4(corpus.options(tmp_path / "in"), quiet=True)
    assert manifest_of(tmp_path / "in")["totals"]["notes"] == {"bad-matched-index": 1}
    run(tmp_path / "in", tmp_path / "out", clip, min_similarity=1.0)
    assert manifest_of(tmp_path / "out")["totals"]["notes"] == {}
    assert [line["action"] for line in rejects_of(tmp_path / "out")] == [
        "dropped-document",
        "dropped-image",
    ]
    assert findings(tmp_path / "out") == []


def test_long_documents_span_many_batches(clip: str, tmp_path: Path) -> None:
    names = [f"{k}.jpg" for k in range(30)]
    records = [document(0, images=names[:11], sentences=307), document(1, images=names[11:])]
    pictures = {name: picture(k) for k, name in enumerate(names)}
    corpus = one_file(tmp_path / "c", records, pictures)
    convert_mmc4(corpus.options(tmp_path / "in"), quiet=True)
    run(tmp_path / "in", tmp_path / "out", clip)
    assert findings(tmp_path / "out") == []
    scorer = ClipScorer(clip, batch_size=4)
    for sample in documents_of(tmp_path / "out").values():
        data = [image_bytes(info) for info in sample["image_info"]]
        assert sample["similarity_matrix"] == scorer.similarity(data, sample["text_list"]).tolist()


def test_converting_with_clip_is_converting_and_aligning(clip: str, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "in", records=12)
    convert_mmc4(corpus.options(tmp_path / "plain", docs_per_shard=3), quiet=True)
    run(tmp_path / "plain", tmp_path / "aligned", clip)
    options = corpus.options(
        tmp_path / "at-once", docs_per_shard=3, clip_model=clip, clip_batch_size=4
    )
    result = convert_mmc4(options, quiet=True)
    assert findings(tmp_path / "at-once") == []
    for path in sorted((tmp_path / "aligned").glob("*.tar")):
        assert path.read_bytes() == (tmp_path / "at-once" / path.name).read_bytes()
    assert result.scored is not None
    assert result.scored.images == result.tally.images


def test_records_without_a_matrix_are_kept_where_clip_makes_one(clip: str, tmp_path: Path) -> None:
    record = document(1, images=["ok0.jpg", "ok1.jpg"])
    del record["similarity_matrix"]
    corpus = one_file(tmp_path / "c", [record, document(2, images=["ok2.jpg"])])
    without = convert_mmc4(corpus.options(tmp_path / "without"), quiet=True)
    assert without.tally.documents_dropped == {"no-matrix": 1}
    convert_mmc4(corpus.options(tmp_path / "with", clip_model=clip), quiet=True)
    assert len(documents_of(tmp_path / "with")) == 2
    assert findings(tmp_path / "with") == []


class TestRefusals:
    def test_a_folder_that_is_not_complete(self, shards: Path, clip: str, tmp_path: Path) -> None:
        shutil.copytree(shards, tmp_path / "in")
        (tmp_path / "in" / "manifest.json").unlink()
        with pytest.raises(BadInputError, match="conversion is not complete"):
            run(tmp_path / "in", tmp_path / "out", clip)
        assert not (tmp_path / "out").exists()

    def test_a_gap(self, shards: Path, clip: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="expected shard 0: shards keep their numbers"):
            run(shards / "000000001.tar", tmp_path / "out", clip)

    def test_a_beginning_is_no_gap(self, shards: Path, clip: str, tmp_path: Path) -> None:
        result = run(f"{shards}/{{000000000..000000001}}.tar", tmp_path / "out", clip)
        assert (result.shards_written, result.complete) == (2, True)
        assert findings(tmp_path / "out") == []

    def test_its_own_input_as_output(self, shards: Path, clip: str) -> None:
        with pytest.raises(UserError, match="the shards are read from there"):
            run(shards, shards, clip, overwrite=True)

    def test_a_missing_model(self, shards: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="--clip-model nothing: expected a model of open_clip"):
            run(shards, tmp_path / "out", "nothing")
        assert not (tmp_path / "out").exists()
        with pytest.raises(UserError, match="--clip-model: expected a CLIP"):
            Align(shards=("x",), output="y")

    def test_actors_without_ray(self) -> None:
        with pytest.raises(UserError, match="--clip-actors: actors are Ray's"):
            Align(shards=("x",), output="y", clip_model="z", clip_actors=1, workers=0)

    def test_a_damaged_member_fails_its_shard_alone(
        self, shards: Path, reference: Path, clip: str, tmp_path: Path
    ) -> None:
        shutil.copytree(shards, tmp_path / "in")
        path = tmp_path / "in" / "000000001.tar"
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)
        result = run(tmp_path / "in", tmp_path / "out", clip)
        assert (result.exit_code, result.shards_written, result.complete) == (1, 3, False)
        ((label, failure),) = result.failures
        assert label == str(path)
        assert "is not what it was written as" in failure.error
        path.write_bytes((shards / path.name).read_bytes())
        assert run(tmp_path / "in", tmp_path / "out", clip).exit_code == 0
        assert snapshot(tmp_path / "out") == snapshot(reference)

    def test_a_lacking_extra_is_named_with_what_to_install(
        self, shards: Path, tmp_path: Path
    ) -> None:
        code = (
            "import importlib.util as u; find = u.find_spec\n"
            "u.find_spec = lambda name, *more: None if name == 'open_clip' else find(name, *more)\n"
            "from mmdata.cli.main import main\n"
            f"raise SystemExit(main({command(shards, tmp_path / 'out', 'ViT-B-32')[3:]!r}))"
        )
        done = run_cli([*cli()[:1], "-c", code])
        assert done.returncode == 2
        assert "mmdata align needs open_clip, which is not installed: pip install" in done.stderr
        assert "[clip]'" in done.stderr


def test_a_dry_run_writes_nothing(shards: Path, clip: str, tmp_path: Path) -> None:
    result = run(shards, tmp_path / "out", clip, dry_run=True)
    assert result.plan.num_shards == 4
    assert not (tmp_path / "out").exists()


def test_the_options_of_clip_are_the_same_everywhere() -> None:
    def options(kind: type) -> dict[str, Any]:
        return {one.name: (one.type, one.default) for one in fields(kind) if "clip" in one.name}

    assert options(Align) == options(ConvertMmc4)
    assert len(options(Align)) == 5


def test_the_command_says_how_busy_the_model_was(
    shards: Path, reference: Path, clip: str, tmp_path: Path
) -> None:
    done = run_cli(command(shards, tmp_path / "out", clip, "--workers", "0"))
    assert done.returncode == 0, done.stderr
    assert "the scorers were busy" in done.stdout
    assert snapshot(tmp_path / "out") == snapshot(reference)
    with tarfile.open(tmp_path / "out" / "000000000.tar") as archive:
        assert len(archive.getnames()) > 0


@pytest.mark.matrix
@pytest.mark.ray
@pytest.mark.parametrize("more", [{"workers": 1}, {"workers": 2, "clip_actors": 1}])
def test_any_number_of_workers_and_actors_gives_equal_bytes(
    shards: Path, reference: Path, clip: str, tmp_path: Path, more: dict[str, int]
) -> None:
    result = run(shards, tmp_path / "out", clip, **more)
    assert result.failures == []
    assert snapshot(tmp_path / "out") == snapshot(reference)
    assert result.scored is not None
    assert 0 < result.scored.busy_seconds <= result.scored.seconds


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_run_goes_on_to_equal_bytes(
    shards: Path, reference: Path, clip: str, tmp_path: Path
) -> None:
    """Two workers; the driver is killed as soon as a shard is there."""
    output = tmp_path / "out"
    process = subprocess.Popen(
        command(shards, output, clip, "--workers", "2"),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(output.glob("[0-9]*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    check_nothing_half_written(output)
    deadline = time.monotonic() + 300
    result = run(shards, output, clip)
    assert result.exit_code == 0
    assert result.shards_kept >= 1
    assert snapshot(output) == snapshot(reference)
    while leftovers(output) and time.monotonic() < deadline:
        time.sleep(0.5)  # a worker that outlives its driver takes its files with it
    assert findings(output) == []
