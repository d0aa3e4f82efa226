"""A tiny CLIP, a tiny LM and real shards, made once; `options(**changes)` is a run on them.

Factories: `world` (folders of models and shards), `run_options` (a `Train` for a fresh folder),
`caption_shards` (an img2dataset-like tar).

parity          a ParityCase per fixture: the reference's inputs, weights and outputs
parity_model    our model with the reference's weights, built once per fixture
lm_family       name of a family of language models in its smallest form (`tiny_lms.py`)
two_ranks       (folder of the files, what rank 0 of two found): one launch for all tests
"""

import importlib.util
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import Train
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from tests.flamingo.models.flamingo.parity_case import FIXTURES, ParityCase
from tests.flamingo.models.flamingo.parity_case import ROOT as PARITY_ROOT
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS
from tests.flamingo.parallel.rank_process import launch

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class World:
    """Folders that the tests of a session share."""

    shards: Path
    captions: Path
    lm: Path
    clip: Path


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def make_world(folder: Path) -> World:
    """Shards, captions and tiny models, in a folder."""
    folder.mkdir(exist_ok=True)
    sample = ROOT / "examples" / "mmc4"
    options = ConvertMmc4(
        docs=(str(sample),),
        images=str(sample / "images"),
        output=str(folder / "shards"),
        num_shards=4,
        workers=0,
    )
    assert convert_mmc4(options, quiet=True).exit_code == 0
    models = load_example("make_tiny_models")
    models.make_language_model(folder / "lm", models.make_tokenizer(folder / "lm"))
    models.make_clip(folder / "clip")
    write_captions(folder / "captions")
    return World(folder / "shards", folder / "captions", folder / "lm", folder / "clip")


def load_example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_captions(folder: Path) -> None:
    """Twelve pairs of a coloured picture and its colour's name, as img2dataset lays them out."""
    folder.mkdir()
    names = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number in range(12):
            name, colour = list(names.items())[number % 3]
            data = io.BytesIO()
            Image.new("RGB", (80 + number, 70), colour).save(data, "JPEG")
            for suffix, content in (("jpg", data.getvalue()), ("txt", f"a {name} wall".encode())):
                info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def run_options(world: World, tmp_path: Path) -> Callable[..., Train]:
    """A run of four steps on the interleaved shards; anything can be changed."""

    def make(name: str = "run", **changes: Any) -> Train:
        return options_of_a_run(world, tmp_path / name, **changes)

    return make


def options_of_a_run(world: World, folder: Path, **changes: Any) -> Train:
    """Four steps on the interleaved shards, but for what is changed."""
    given: dict[str, Any] = {
        "mmc4_shards": str(world.shards),
        "lm_path": str(world.lm),
        "vision_encoder_path": str(world.clip),
        "run_name": str(folder),
        "mmc4_min_image_bytes": 0,
        "mmc4_max_tokens": 64,
        "batch_size_mmc4": 4,
        "batch_size_laion": 4,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "offline": True,
        "device": "cpu",
    }
    return Train(**(given | changes))


@pytest.fixture(scope="session", params=FIXTURES)
def parity(request: pytest.FixtureRequest) -> ParityCase:
    return ParityCase(PARITY_ROOT / request.param)


@pytest.fixture(scope="session")
def _parity_model(parity: ParityCase) -> Flamingo:
    return parity.build_model()


@pytest.fixture
def parity_model(_parity_model: Flamingo) -> Iterator[Flamingo]:
    yield _parity_model
    _parity_model.zero_grad(set_to_none=True)


@pytest.fixture(params=CONFIGS)
def lm_family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two_ranks")
    return folder, launch(folder)
