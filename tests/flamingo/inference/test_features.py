"""Features on disk stand for pictures and tower: the same samples, nearly the same loss.

The tiny CLIP computes in this process; `tests/pipelines/features/` has the Ray actors.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from flamingo.data.decode import decode_image, normalization_of, to_input
from flamingo.data.features import FeatureStore
from flamingo.inference.features import ShardEncoder
from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from flamingo.modules.vision import encode_images, load_tower, tower_name
from flamingo.telemetry.jsonl import read_log
from mmdata.errors import BadInputError, UserError
from mmdata.shards.features import features_path
from mmdata.shards.reader import ShardReader
from mmdata.training_view.records import image_bytes, read_record
from pipelines.features.options import Features
from pipelines.features.run import FeaturesReport, write_features
from tests.flamingo.conftest import World


def make_features(world: World, output: Path, *shards: Path, **changes: object) -> FeaturesReport:
    options = Features(
        shards=tuple(map(str, shards or [world.shards])),
        output=str(output),
        vision_encoder_path=str(world.clip),
        actors=0,
        offline=True,
    )
    return write_features(dataclasses.replace(options, **changes), ShardEncoder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def features(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("features")
    assert make_features(world, output).exit_code == 0
    return output


def test_every_image_has_the_towers_own_tokens(world: World, features: Path) -> None:
    tower, processor = load_tower(tower_name(str(world.clip)), None)
    pixels = normalization_of(processor)
    store = FeatureStore(str(features))
    compared = 0
    for shard in sorted(world.shards.glob("*.tar")):
        with ShardReader(shard) as reader:
            for sample in list(reader)[::5]:
                for number, image in enumerate(read_record(sample.members, "interleaved").images):
                    found = store.read(str(shard), sample.key, number)
                    assert image is not None
                    assert found is not None
                    square = decode_image(image_bytes(image), 64).unsqueeze(0)
                    given = to_input(square, pixels.mean, pixels.std)
                    expected = encode_images(tower, given, 1)[0].to(torch.bfloat16)
                    torch.testing.assert_close(found, expected, rtol=1.6e-2, atol=1e-3)
                    compared += 1
    assert compared > 10


def test_any_reader_of_safetensors_opens_them(world: World, features: Path) -> None:
    shard = min(world.shards.glob("*.tar"))
    store = FeatureStore(str(features))
    with (
        ShardReader(shard) as reader,
        safe_open(features_path(str(features), str(shard)), "pt") as file,
    ):
        first = file.get_tensor("first")
        keys = bytes(file.get_tensor("keys").tolist()).decode().split()
        assert keys == reader.keys
        tokens = file.get_tensor("tokens")
        assert tokens.dtype == torch.bfloat16
        assert len(tokens) == first[-1] == len(file.get_tensor("usable"))
        at = keys.index(keys[3])
        assert torch.equal(tokens[first[at]], store.read(str(shard), keys[3], 0))  # type: ignore[arg-type]
        assert file.metadata()["shard_bytes"] == str(shard.stat().st_size)


def losses_of(options: Train, *logs: str) -> list[float]:
    """Of all lines of some logs of a run."""
    train(options)
    lines = [line for log in logs for line in read_log(str(Path(options.run_name) / log))]
    return [loss for line in lines for loss in line["losses"].values()]


@pytest.mark.slow
def test_training_on_them_gives_the_loss_of_training_on_pixels_without_a_tower(
    world: World,
    features: Path,
    run_options: Callable[..., Train],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained on and measured on; with features for all streams the tower is not loaded."""
    logs = ("metrics.jsonl", "validation.jsonl")
    held = {"val_stream": (f"held={world.shards}",)}
    of_pixels = losses_of(run_options("pixels", **held), *logs)
    held["stream_opt"] = (f"held.features={features}",)
    some = losses_of(run_options("some", **held, random_flip=False), *logs)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the tower was loaded")

    monkeypatch.setattr("flamingo.models.flamingo.build.load_tower", refuse)
    of_features = losses_of(run_options("all", **held, mmc4_features=str(features)), *logs)
    assert len(of_pixels) == 4 + 2
    assert of_pixels == pytest.approx(some, abs=1e-2)
    assert of_pixels == pytest.approx(of_features, abs=1e-2)
    with pytest.raises(AssertionError, match="the tower was loaded"):
        train(run_options("pixels", max_steps=5))


def test_features_to_measure_on_are_those_of_the_tower_too(
    world: World, tmp_path: Path, run_options: Callable[..., Train]
) -> None:
    make_features(world, tmp_path / "post", vision_tokens="post_norm")
    held = {
        "val_stream": (f"held={world.shards}",),
        "stream_opt": (f"held.features={tmp_path / 'post'}",),
    }
    with pytest.raises(UserError, match="made with another vision tower"):
        train(run_options(**held, random_flip=True))


def test_a_stream_of_features_needs_few_open_files(world: World, features: Path) -> None:
    store = FeatureStore(str(features), most_open=1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for shard in sorted(world.shards.glob("*.tar")):
            with ShardReader(shard) as reader:
                assert store.read(str(shard), reader.keys[0], 0) is not None
    assert len(os.listdir("/proc/self/fd")) - before <= 1


@pytest.mark.matrix
@pytest.mark.slow
def test_training_on_packed_sequences_and_chunks_ends_and_resumes(
    run_options: Callable[..., Train],
) -> None:
    changes = {"pack": True, "pack_tokens": 128, "long_documents": "chunk", "random_flip": True}
    result = train(run_options("packed", **changes))
    assert result.steps == 4
    again = train(run_options("packed", **changes, max_steps=6))
    assert (again.resumed_from, again.steps) == (4, 6)
    whole = train(run_options("whole", **changes, max_steps=6))
    assert whole.losses["mmc4"][1].loss > 0
    logs = [
        [
            line["losses"]["mmc4"]
            for line in read_log(str(Path(run_options(name).run_name) / "metrics.jsonl"))
        ]
        for name in ("packed", "whole")
    ]
    assert logs[0] == logs[1]


def test_a_random_flip_of_features_is_refused(
    features: Path, run_options: Callable[..., Train]
) -> None:
    with pytest.raises(UserError, match="random_flip: precomputed features cannot be mirrored"):
        train(run_options(mmc4_features=str(features), random_flip=True))


def test_features_of_another_tower_are_refused(
    world: World, tmp_path: Path, run_options: Callable[..., Train]
) -> None:
    make_features(world, tmp_path / "post", vision_tokens="post_norm")
    with pytest.raises(UserError, match="made with another vision tower") as error:
        train(run_options(mmc4_features=str(tmp_path / "post")))
    assert "post_norm" in str(error.value)


def test_features_of_another_shard_are_refused(
    world: World, features: Path, tmp_path: Path
) -> None:
    shard = tmp_path / min(world.shards.glob("*.tar")).name
    shard.write_bytes(b"\0" * 1024)
    with pytest.raises(BadInputError, match="made for a shard of"):
        FeatureStore(str(features)).read(str(shard), "000000000000", 0)


def test_features_that_are_cut_short_are_refused(
    world: World, features: Path, tmp_path: Path
) -> None:
    shard = min(world.shards.glob("*.tar"))
    whole = Path(features_path(str(features), str(shard)))
    (tmp_path / whole.name).write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(BadInputError, match="cut short; make it again"):
        FeatureStore(str(tmp_path)).read(str(shard), "000000000000", 0)


def test_the_same_command_again_makes_only_what_is_missing(
    world: World, features: Path, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(features, output)
    gone, *rest = sorted(output.glob("*.safetensors"))
    before = gone.read_bytes()
    gone.unlink()
    stamps = [path.stat().st_mtime_ns for path in rest]
    report = make_features(world, output)
    assert report.reused == len(rest)
    assert gone.read_bytes() == before
    assert [path.stat().st_mtime_ns for path in rest] == stamps


def test_the_size_is_said_before_it_starts(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = make_features(world, tmp_path / "out")
    said = capsys.readouterr().err
    assert said.startswith(f"mmdata features: {report.images:,} images x 16 x 64 bf16 = ")
    assert f"GB in {tmp_path / 'out'}" in said


def test_images_that_cannot_be_decoded_are_counted_and_left_out(
    world: World, tmp_path: Path
) -> None:
    from tests.flamingo.data.conftest import make_page, write_pages

    pages = [make_page(number, [0, 2]) for number in range(3)]
    pages[1]["image_info"][0]["image_base64"] = "AAAA"
    write_pages(tmp_path / "p", [pages])  # type: ignore[list-item]
    report = make_features(world, tmp_path / "out", tmp_path / "p")
    assert (report.images, report.undecodable) == (6, 1)
    assert "1 image cannot be decoded" in report.text()
    shard = str(tmp_path / "p" / "000000000.tar")
    store = FeatureStore(str(tmp_path / "out"))
    assert store.read(shard, "000000000001", 0) is None
    assert store.read(shard, "000000000001", 1) is not None


def test_two_shards_of_one_name_are_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.shards, tmp_path / "twin")
    with pytest.raises(UserError, match="both would be 000000000"):
        make_features(world, tmp_path / "out", world.shards, tmp_path / "twin")
    assert not (tmp_path / "out").exists()
