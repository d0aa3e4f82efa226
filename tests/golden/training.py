"""Two short runs of the tiny model through the command line, and what they leave behind.

    make_world(folder)     shards, captions, a tiny language model and a tiny CLIP
    train(folder, name)    one of RUNS in that folder
    key()                  versions, and the CPU, that decide losses
    curve(run)             losses and counts of every step
    left_behind(run)       files of the run, and the tensors of its checkpoint

As in `sample_runs`, nothing of the project is imported but its command line.
"""

import json
import runpy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.golden.sample_runs import GROUPS, ROOT, call, codecs, one_thread, prepare

STORED = Path(__file__).with_name("curve.json")
#: Numbers of a step that are counted or read from a table, and so are equal to the last digit.
COUNTED = ("step", "learning_rate", "skipped", "samples", "tokens", "images", "streams", "drops")
#: Not held: the model's description to have another name (a run that holds it
#: under the old one is resumed by a test of its own), and the tokenizer's files are transformers'.
NOT_HELD = ("fit.json", "identity.json")

_ALWAYS = ["train", "--lm-path", "lm", "--vision-encoder-path", "clip", "--mmc4-shards", "shards",
           "--mmc4-min-image-bytes", "0", "--mmc4-max-tokens", "64", "--learning-rate", "1e-3",
           "--offline", "--device", "cpu"]  # fmt: skip

#: Options by the name of the run.
RUNS: dict[str, list[str]] = {
    "two-streams": ["--laion-shards", "captions", "--batch-size-mmc4", "4", "--batch-size-laion",
                    "4", "--max-steps", "20", "--save-steps", "10", "--warmup-steps", "4",
                    "--lr-scheduler", "cosine"],
    "packed": ["--pack", "--pack-tokens", "256", "--batch-size-mmc4", "1",
               "--gradient-accumulation-steps", "2", "--val-stream", "held-out=captions",
               "--val-every", "3", "--max-steps", "6", "--gradient-checkpointing",
               "--cross-attn-every-n-layers", "2", "--random-flip"],
}  # fmt: skip


def make_world(folder: Path) -> None:
    """Write into an empty folder what the runs read."""
    prepare(folder)
    made = {
        "shards": [*GROUPS["convert-mmc4"]["plain"][:4], "--num-shards", "4"],
        "captions": [*GROUPS["convert-laion"]["table-pairs"]],
    }
    for name, words in made.items():
        if code := call([*words, "--output", name, "--workers", "0"], folder):
            raise RuntimeError(f"{name}: exit code {code}")
    models = runpy.run_path(str(ROOT / "examples" / "make_tiny_models.py"))
    models["make_language_model"](folder / "lm", models["make_tokenizer"](folder / "lm"))
    models["make_clip"](folder / "clip")


def train(folder: Path, name: str) -> Path:
    """Train on one thread; the folder of the run."""
    with one_thread():
        if code := call([*_ALWAYS, *RUNS[name], "--run-name", name], folder):
            raise RuntimeError(f"{name}: exit code {code}")
    return folder / name


def key() -> dict[str, str]:
    """What decides losses: the arithmetic, the initial values, the pictures and the tokens."""
    import torch

    packages = ("torch", "transformers", "tokenizers", "open_clip_torch")
    return {
        **{name: version(name) for name in packages},
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **codecs(),
    }


def curve(run: Path) -> dict[str, Any]:
    """By step what was measured and what was counted, and the losses of validation."""
    steps = _lines(run / "metrics.jsonl")
    events = _lines(run / "events.jsonl")
    return {
        "losses": [line["losses"] for line in steps],
        "gradient_norms": [line["gradient_norm"] for line in steps],
        "validation": {
            str(line["step"]): line["losses"] for line in events if line["event"] == "validation"
        },
        "counted": [{name: line[name] for name in COUNTED} for line in steps],
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left_behind(run: Path) -> dict[str, Any]:
    """Names of files; where the last checkpoint goes on; its tensors with types and shapes."""
    from torch.distributed.checkpoint import FileSystemReader

    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
    last = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    state = json.loads((last / "state.json").read_text(encoding="utf-8"))
    tensors = FileSystemReader(last / "tensors").read_metadata().state_dict_metadata
    return {
        "files": [
            path.as_posix()
            for path in files
            if path.name not in NOT_HELD and path.parent.name != "tokenizer"
        ],
        "positions": state["positions"],
        "state": sorted(state),
        "tensors": {
            name: f"{str(found.properties.dtype).removeprefix('torch.')} {list(found.size)}"
            for name, found in sorted(tensors.items())
        },
    }
