"""A family of models is added from outside: estimated, trained, resumed, exported, and it writes.

`tests/toy_family` is what a new family takes, in miniature: an encoder-decoder, whose target ids
are not its input ids. No line of the packages knows of it.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from PIL import Image
from torch.distributed.checkpoint.filesystem import FileSystemReader

from flamingo.data.text_layout import DecoderText
from flamingo.inference.export import export
from flamingo.inference.export_options import Export
from flamingo.inference.generate import generate
from flamingo.inference.options import Generate
from flamingo.launch.entry import run_train
from flamingo.launch.run import train
from flamingo.memory.estimate import tell_estimate
from flamingo.models.family import Prompt
from flamingo.models.registry import FAMILIES, FIRST_FAMILY, find_family, options_of, record_of
from flamingo.modules.checkpoint_files import read_header, read_weights
from flamingo.train.checkpoint.trained import build, find_trained
from mmdata.errors import UserError
from mmdata.training_view.sequence import MediaTokenizer
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from tests.flamingo.conftest import load_example, write_captions
from tests.toy_family.family import add_toys
from tests.toy_family.options import NAME, TrainToy
from tests.toy_family.text import ToyText

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    """The family in the table, and one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    add_toys()
    yield
    del FAMILIES[NAME]
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, captions, and a tokenizer."""
    folder = tmp_path_factory.mktemp("toys")
    sample = ROOT / "examples" / "mmc4"
    made = convert_mmc4(
        ConvertMmc4(
            docs=(str(sample),),
            images=str(sample / "images"),
            output=str(folder / "shards"),
            num_shards=4,
            workers=0,
        ),
        quiet=True,
    )
    assert made.exit_code == 0
    write_captions(folder / "captions")
    load_example("make_tiny_models").make_tokenizer(folder / "tokenizer")
    return folder


def options(world: Path, name: str, **changes: Any) -> TrainToy:
    given: dict[str, Any] = {
        "tokenizer_path": str(world / "tokenizer"),
        "run_name": str(world / name),
        "mmc4_shards": str(world / "shards"),
        "laion_shards": str(world / "captions"),
        "mmc4_min_image_bytes": 0,
        "mmc4_max_tokens": 64,
        "batch_size_mmc4": 4,
        "batch_size_laion": 2,
        "learning_rate": 0.1,
        "optimizer": "sgd",  # whose steps are as near to each other as the gradients
        "momentum": 0.9,
        "max_steps": STEPS,
        "workers": 0,
        "device": "cpu",
        "offline": True,
    }
    return TrainToy(**(given | changes))


@pytest.fixture(scope="module")
def run(world: Path, toys: None) -> TrainToy:
    """A run on one rank, by the path that a command takes."""
    asked = options(world, "run", preflight="on", memory_every=1, save_steps=2)
    assert run_train(asked) == 0
    return asked


def losses(asked: TrainToy) -> list[dict[str, float]]:
    lines = (Path(asked.run_name) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["losses"] for line in lines]


def test_its_targets_are_no_part_of_what_it_reads(world: Path) -> None:
    asked = options(world, "text")
    tokenizer = MediaTokenizer(find_family(NAME).tokenizer(asked))
    ids = [tokenizer.image_id, 9, tokenizer.image_id, 7, 8, 6, tokenizer.endofchunk_id]
    rows = ToyText(tokenizer).rows([ids, ids[2:]], "caption", None)
    assert rows.input_ids[0].tolist() == ids[:3]
    assert rows.labels.tolist() == [ids[3:], ids[3:]]
    assert rows.input_ids.shape != rows.labels.shape
    assert DecoderText(tokenizer).rows([ids], "caption", None).labels.shape == (1, len(ids))


def test_it_is_estimated(world: Path) -> None:
    text = tell_estimate(options(world, "none", estimate=True, memory_budget=1e-6))
    assert "activations: encoder" in text
    assert "does not fit" in text
    assert not (world / "none").exists()


def test_it_trains_and_what_it_is_stands_beside_its_weights(run: TrainToy) -> None:
    found = losses(run)
    assert len(found) == STEPS
    assert all(one["mmc4"] > 0 and one["laion"] > 0 for one in found)
    assert found[-1]["laion"] < found[0]["laion"]
    record = json.loads((Path(run.run_name) / "options.json").read_text())
    assert record["family"] == NAME
    assert options_of(record) == replace(run, precision="fp32")  # what a CPU takes
    assert record_of(replace(run, precision="fp32")) == {
        **record,
        "stream": (),
        "stream_opt": (),
        "val_stream": (),
    }
    last = Path(run.run_name) / "checkpoints" / f"step-{STEPS:08d}"
    assert json.loads((last / "identity.json").read_text())["model_family"] == NAME
    there = FileSystemReader(last / "tensors").read_metadata().state_dict_metadata
    assert {"model.embedding.weight", "optimizer.embedding.weight.momentum_buffer"} <= set(there)


def test_its_streams_go_through_together(world: Path, run: TrainToy) -> None:
    merged = replace(run, run_name=str(world / "merged"), merge_streams="on")
    assert run_train(merged) == 0
    for found, expected in zip(losses(merged), losses(run), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_it_goes_on_where_it_was(world: Path, run: TrainToy) -> None:
    second = Path(run.run_name) / "checkpoints" / "step-00000002"
    goes_on = replace(run, run_name=str(world / "on"), resume_from_checkpoint=str(second))
    train(goes_on)
    assert losses(goes_on) == losses(run)[2:]
    with pytest.raises(UserError, match="expected"):  # its weights are those of another size
        train(replace(run, run_name=str(world / "wide"), toy_width=8, init_from=str(second)))


def test_it_is_exported_and_writes(world: Path, run: TrainToy) -> None:
    with pytest.raises(UserError, match="of the family toy has none such; expected safetensors"):
        export(Export(run=run.run_name, format="openflamingo", offline=True))
    made = export(Export(run=run.run_name, format="safetensors", offline=True))
    header = read_header(made.file)
    assert header.parts is not None
    assert (header.parts["family"], header.parts["toy_width"]) == (NAME, 16)
    picture = str(world / "wall.png")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(picture)
    asked = Generate(checkpoint=made.folder, prompt="<image>", image=(picture,), device="cpu")
    text = generate(asked)
    assert text == generate(replace(asked, checkpoint=run.run_name))
    trained = find_trained(run.run_name)
    assert trained is not None
    with pytest.raises(UserError, match="--lm-path: a model of the family toy has no such part"):
        trained.moved(lm_path="elsewhere")


def test_it_finds_what_it_writes_likelier_than_anything_else(run: TrainToy) -> None:
    trained = find_trained(run.run_name)
    assert trained is not None
    model, tokenizer = build(trained, offline=True)
    prompt = Prompt([MediaTokenizer(tokenizer).image_id], torch.zeros(1, 3, 32, 32).byte())
    ((first,),) = model.continue_prompts([prompt], max_new_tokens=1)
    ((own, other),) = model.score([prompt], [[[first], [first + 1]]])
    assert other < own < 0


def test_a_family_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"model family nobody: expected one of flamingo, toy"):
        options_of({"family": "nobody"})
    assert FIRST_FAMILY in FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_as_one(world: Path, run: TrainToy, parallel: str) -> None:
    asked = replace(
        run,
        run_name=str(world / parallel),
        parallel=parallel,
        batch_size_mmc4=2,
        batch_size_laion=1,
        preflight="off",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [_rank(asked, number, port) for number in range(2)]
    for rank in ranks:
        told, _ = rank.communicate(timeout=300)
        assert rank.returncode == 0, told
    for one, other in zip(losses(asked), losses(run), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    last = f"checkpoints/step-{STEPS:08d}"
    found, expected = (read_weights(Path(one.run_name) / last) for one in (asked, run))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-3)


def _rank(asked: TrainToy, number: int, port: int) -> subprocess.Popen[str]:
    own = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.toy_family.rank", json.dumps(record_of(asked))],
        env=os.environ | {name: str(value) for name, value in (own | place).items()},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
