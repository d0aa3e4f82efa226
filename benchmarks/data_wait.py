"""The share of a training step that is spent waiting for data, in a real run of `mmdata train`.

    python -m benchmarks.data_wait [--device cuda|cpu] [--steps 60] [--folder .bench] [-- OPTION …]

Made for a machine with a GPU, unattended and without downloads: a ViT-L/14 and a GPT-NeoX of 1.4B
parameters with random weights (6 GB, made once), bf16, on the corpus of the loader's benchmark. How
long a step takes does not depend on what the weights are. Without a GPU, tiny models stand for
these, and the share says that the benchmark runs, and nothing about feeding a GPU: no gate. What is
given after `--` goes to `mmdata train`, real models for example.

The first steps, with what they load and compile, are left out. A step waits from asking for its
batch until it has it; with several ranks the longest wait counts.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.convert import ready_corpus
from benchmarks.gates import Gate, load_average, print_gates
from benchmarks.loader import ready_shards
from examples import make_tiny_models

AIM_PERCENT = 2.0
DOCS, WARM_STEPS = 400, 10
#: OpenCLIP's ViT-L-14, with as little of a text tower as it takes.
LARGE_CLIP: dict[str, Any] = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
    "text_cfg": {"context_length": 16, "vocab_size": 512, "width": 64, "heads": 2, "layers": 1},
}
#: As Pythia-1.4B.
LARGE_LM = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16}


def ready_models(folder: Path, *, large: bool) -> Path:
    """A CLIP and an LM of random weights, made unless they are there."""
    models = folder / ("wait-large" if large else "wait-tiny")
    mark = models / "done"
    if not mark.exists():
        shutil.rmtree(models, ignore_errors=True)
        vocabulary = make_tiny_models.make_tokenizer(models / "lm")
        if large:
            make_large_language_model(models / "lm", vocabulary)
            make_tiny_models.CLIP_CONFIG = LARGE_CLIP
        else:
            make_tiny_models.make_language_model(models / "lm", vocabulary)
        make_tiny_models.make_clip(models / "clip")
        mark.touch()
    return models


def make_large_language_model(folder: Path, vocabulary: int) -> None:
    """A GPT-NeoX from its config and a fixed seed."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(vocab_size=vocabulary, intermediate_size=8192, **LARGE_LM)
    GPTNeoXForCausalLM(config).save_pretrained(folder)


def train_command(
    shards: Path, models: Path, run: Path, *, device: str, steps: int, more: list[str]
) -> list[str]:
    """`mmdata train`, which is given what a person would give it."""
    return [
        *(sys.executable, "-m", "mmdata.cli", "train"),
        *("--mmc4-shards", str(shards), "--run-name", str(run)),
        *("--lm-path", str(models / "lm"), "--vision-encoder-path", str(models / "clip")),
        *("--batch-size-mmc4", "8", "--max-steps", str(steps), "--device", device),
        *("--cross-attn-every-n-layers", "4", "--offline"),
        *(["--precision", "bf16-mixed"] if device == "cuda" else []),
        *more,
    ]


def wait_percent(log: Path) -> float:
    """The median over steps of the share that was spent waiting, without the first ones."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return median(100 * line["wait_seconds"] / line["seconds"] for line in lines[WARM_STEPS:])


def bench(
    folder: Path, device: str = "auto", steps: int = 60, more: list[str] | None = None
) -> list[Gate]:
    """Train, and read the log."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    shards = ready_shards(ready_corpus(folder, DOCS), "shards")
    run = folder / "wait-run"
    shutil.rmtree(run, ignore_errors=True)
    models = ready_models(folder, large=device == "cuda")
    subprocess.run(
        train_command(shards, models, run, device=device, steps=steps, more=more or []), check=True
    )
    share = wait_percent(run / "metrics.jsonl")
    print(
        f"data wait: {share:.2f}% of a step's time on {device}, median of steps; {load_average()}"
    )
    if device != "cuda":
        print("no GPU: the models were tiny, so this says nothing of how a GPU is fed")
        return []
    return [
        Gate("share of a step spent waiting for data", share, AIM_PERCENT, at_most=True, unit="%")
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("more", nargs="*", help="after --: options of mmdata train")
    options = parser.parse_args()
    gates = bench(options.folder.resolve(), options.device, options.steps, options.more)
    print_gates(gates)
    return 0 if all(gate.passed for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
