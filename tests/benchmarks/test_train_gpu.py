"""The GPU's benchmark runs on a CPU, and its two loops train the same model on the same samples."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks import train_gpu
from benchmarks.train_gpu_batches import IMAGES_PER_DOCUMENT, Size, loaders, make_steps
from benchmarks.train_gpu_peer import PlainLoop
from benchmarks.train_gpu_shapes import SHAPES, build, language_model
from tests.flamingo.train.eager import without_compiler

CPU = torch.device("cpu")
SIZE = Size(documents=3, pairs=4, document_tokens=24, pair_tokens=12)


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


@pytest.fixture
def bench() -> train_gpu.Bench:
    return train_gpu.Bench(SHAPES["tiny"], SIZE, CPU, 1)


def test_documents_have_one_to_six_images_and_two_as_a_rule() -> None:
    assert len(IMAGES_PER_DOCUMENT) == 32
    assert (min(IMAGES_PER_DOCUMENT), max(IMAGES_PER_DOCUMENT)) == (1, 6)
    assert median(IMAGES_PER_DOCUMENT) == 2


def test_packed_samples_are_the_same_samples_in_fewer_rows(bench: train_gpu.Bench) -> None:
    apart, packed = bench.samples(), bench.samples(packed=True)
    for name, batches in apart.items():
        for one, other in zip(batches, packed[name], strict=True):
            assert other.keys == one.keys
            assert len(other) < len(one)
            assert other.num_images == one.num_images
            assert other.attention_mask.sum() == one.attention_mask.sum()
            assert one.pixels is not None
            assert other.pixels is not None
            assert torch.equal(other.pixels, one.pixels)


def test_features_have_the_shape_of_the_towers_tokens(bench: train_gpu.Bench) -> None:
    (batch, *_) = bench.samples(features=True)["mmc4"]
    assert batch.pixels is None
    assert batch.features is not None
    assert batch.features.shape == (batch.num_images, 4, 32)


@pytest.mark.parametrize("padded", [True, False])
def test_the_plain_loop_trains_as_ours_does(bench: train_gpu.Bench, *, padded: bool) -> None:
    """In fp32 the losses agree step by step, also after the first updates."""
    samples = make_steps(SHAPES["tiny"], bench.tokenizer, SIZE)
    trainer = bench.trainer(loaders(samples), precision="fp32", loss_multiplier_laion=0.2)
    options = bench.options(precision="fp32")
    model = build(SHAPES["tiny"], bench.tokenizer, options, CPU, attention="eager")
    loop = PlainLoop(model, samples, train_gpu.NORMALIZATION, CPU, padded=padded, autocast=False)
    for _ in range(3):
        ours, plain = trainer.step().losses, loop.step()
        assert plain == pytest.approx(ours, abs=2e-4)


@pytest.mark.slow
@pytest.mark.matrix
def test_all_parts_run_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with without_compiler():
        assert train_gpu.bench(tmp_path, tiny=True, steps=1) == []
    report = json.loads((tmp_path / "train_gpu.json").read_text(encoding="utf-8"))
    measured = {one["name"]: one for one in report["measured"]}
    assert set(measured) == {train_gpu.PADDED, train_gpu.RAGGED, *train_gpu.VARIANTS}
    assert all(one["samples_per_second"] > 0 for one in measured.values())
    for name, one in measured.items():
        if "features" not in name:  # those are random, not the tower's
            assert one["losses"] == pytest.approx(measured[train_gpu.PADDED]["losses"], abs=0.01)
    assert 0 <= report["wait_percent"] < 100
    assert report["nine_fits_with"] == "bf16-mixed"
    shown = capsys.readouterr().out
    assert f"times the {train_gpu.PADDED}: mmdata " in shown
    assert "not measured on a CPU" in shown


@pytest.mark.matrix
def test_a_variant_that_runs_out_of_memory_is_told_and_the_others_run(
    bench: train_gpu.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str, *, padded: bool) -> train_gpu.Measured:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench, "measure_peer", fail)
    monkeypatch.setattr(train_gpu, "VARIANTS", {"mmdata": {}})
    found = train_gpu.compare(bench)
    assert [one.name for one in found] == ["mmdata"]
    assert capsys.readouterr().out.count("out of memory") == 2


def test_the_rungs_are_climbed_until_one_fits(
    bench: train_gpu.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = bench.trainer
    asked = []

    def short_at_first(
        sources: list[train_gpu.StreamLoader], **levers: object
    ) -> train_gpu.Trainer:
        asked.append(levers)
        if len(asked) < 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return trainer(sources, **levers)

    monkeypatch.setattr(bench, "trainer", short_at_first)
    assert train_gpu.fit(bench, 80) == "+ --gradient-checkpointing"
    assert asked == [{}, {"gradient_checkpointing": True}]
    assert "bf16-mixed                   does not fit 80 GB" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "billions"), [("3b", 1.4), ("9b", 6.6)])
def test_the_large_shapes_are_of_the_size_that_they_are_named_for(
    name: str, billions: float
) -> None:
    """Without memory; attention falls back to eager where the LM has no other (MPT)."""
    with torch.device("meta"):
        lm = language_model(SHAPES[name], "sdpa", torch.bfloat16)
    assert sum(one.numel() for one in lm.parameters()) / 1e9 == pytest.approx(billions, abs=0.1)
