"""What is done on the pretended GPU and counted: training in every way, generation, features.

`STEPS` and `TASKS` need no compiler: gradients are made up. `rows` are the combinations of levers
of the covering array (`tests/flamingo/train/test_levers.py`), whose whole step is counted; they are
stored, since finding them takes longer than running them.
"""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from flamingo.inference.features import ShardEncoder
from flamingo.models.family import Prompt
from flamingo.models.flamingo.build import create_model_and_transforms
from mmdata.shards.features import FeatureTask, TowerOptions
from tests.flamingo.conftest import World, make_world, options_of_a_run
from tests.flamingo.gpu import Watch, pretended_gpu
from tests.flamingo.gpu.step import counted_run
from tests.flamingo.parallel.test_wrap import make_lm
from tests.flamingo.train.covering import Setting
from tests.flamingo.train.eager import without_compiler

NEW_TOKENS = 4
#: Of every training; 32 tokens and 2 images make it a second's work.
_COMMON: Setting = {
    **{"mmc4_max_tokens": 32, "mmc4_max_num_images": 2, "workers": 0, "max_steps": 2},
    **{"batch_size_mmc4": 2, "learning_rate": 0.01, "device": "cuda"},
}
_MIXED: Setting = {"precision": "bf16-mixed"}
_PACKED: Setting = {"pack": True, "pack_tokens": 32}
#: Training whose forward pass and optimizer are counted everywhere.
STEPS: dict[str, Setting] = {
    "mixed": _MIXED,
    "mixed, two streams": {**_MIXED, "batch_size_laion": 2, "laion_shards": "captions"},
    "mixed, packed": _MIXED | _PACKED,
    "mixed, recomputed": {**_MIXED, "gradient_checkpointing": True},
}


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of tiny models and shards, and one for what a case writes."""

    world: World
    lm: Path
    folder: Path


def make_place(folder: Path) -> Place:
    """All of it, in a folder."""
    make_lm(folder / "untied")
    return Place(make_world(folder / "world"), folder / "untied", folder)


def step(place: Place, name: str, chosen: Setting) -> Watch:
    """The second step of a run with these levers; blocks are not compiled."""
    chosen = {key: value for key, value in chosen.items() if key != "compile"}
    if "laion_shards" in chosen:
        chosen["laion_shards"] = str(place.world.captions)
    options = options_of_a_run(
        place.world, place.folder / name, **(_COMMON | {"lm_path": str(place.lm)} | chosen)
    )
    with without_compiler(), torch.compiler.set_stance("force_eager"):
        return counted_run(options, saves=False, tries=False).watch


def generation(place: Place) -> Watch:
    """A few tokens for one picture, greedily, and then by two beams."""
    model, _, tokenizer = create_model_and_transforms(
        f"local-dir:{place.world.clip}", None, str(place.lm), str(place.lm), use_local_files=True
    )
    prompt = Prompt([tokenizer.convert_tokens_to_ids("<image>"), 5, 6, 7], _picture())
    with pretended_gpu() as watch:
        model.to("cuda").eval()
        watch.clear()
        for beams in (1, 2):
            model.continue_prompts([prompt], max_new_tokens=NEW_TOKENS, num_beams=beams)
    return watch


def features(place: Place) -> Watch:
    """The patch tokens of a shard, in batches of eight pictures."""
    options = TowerOptions(
        model=f"local-dir:{place.world.clip}",
        pretrained=None,
        vision_tokens="pre_norm",
        device="cuda",
        batch_size=8,
        decode_threads=1,
        exact=False,
        offline=True,
    )
    shard = min(place.world.shards.glob("*.tar"))
    # Tensors made in inference mode have no versions, which views of wrapped ones need.
    encode = torch.no_grad()(ShardEncoder._encode.__wrapped__)  # type: ignore[attr-defined]
    with mock.patch.object(ShardEncoder, "_encode", encode), pretended_gpu() as watch:
        encoder = ShardEncoder(options)
        watch.clear()
        task = FeatureTask(shard=str(shard), output=str(place.folder / "shard.features"))
        for _ in encoder.encode_shard(task):
            pass
    return watch


def _picture() -> torch.Tensor:
    return torch.arange(3 * 64 * 64).remainder(256).to(torch.uint8).view(1, 3, 64, 64)


TASKS: dict[str, Callable[[Place], Watch]] = {"generation": generation, "features": features}


def name_of(row: Setting) -> str:
    """A combination of levers, without what is plain."""
    told = [
        str(value) if name == "precision" else f"{name}={value}"
        for name, value in row.items()
        if (name, value) not in {("freeze", "vision,lm"), ("batch_size_mmc4", 2)}
    ]
    return ", ".join(told)


@contextlib.contextmanager
def quiet() -> Any:
    """Without the warnings of torch that a test would take for errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
