"""The main job on the bundled sample, from raw documents to a trained model, as one sees it.

Every step is a command that a user would type; it is printed before it runs. `make demo` runs this.

    python examples/demo.py [OUT] [--no-training]
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flamingo.telemetry.losses import end_losses_of

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = Path("examples/mmc4")
STEPS = 40


def title(text: str) -> None:
    """A heading between steps."""
    print(f"\n=== {text}", flush=True)


def run(*command: str | Path, expect: int = 0) -> None:
    """Run a command of this environment, shown as it would be typed."""
    words = [str(word) for word in command]
    print("$ " + " ".join(quoted(word) for word in words), flush=True)
    program = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "mmdata.cli"]
    code = subprocess.run([*program, *words[1:]], cwd=ROOT).returncode
    if code != expect:
        sys.exit(f"demo: expected exit code {expect}, got {code}")


def quoted(word: str) -> str:
    """A word as one types it in a shell."""
    return f"'{word}'" if any(char in word for char in " <>*{}") else word


def damage(shards: Path, copy: Path) -> None:
    """Copy the shards and flip one bit in the header of a member in the middle of the first."""
    shutil.copytree(shards, copy)
    tar = copy / "000000000.tar"
    data = bytearray(tar.read_bytes())
    blocks = range(len(data) // 2 // 512, len(data) // 512)
    header = next(block * 512 for block in blocks if data[block * 512 + 257 :][:5] == b"ustar")
    data[header + 5] ^= 1
    tar.write_bytes(data)
    print(f"one bit of the header at byte {header} of {tar} is flipped")


def convert(out: Path) -> None:
    """Documents and pictures to shards, checked, shown, and a damaged copy."""
    shards = out / "shards"
    title("1. real MMC4 documents and their pictures become shards")
    images = SAMPLE / "images"
    run(
        "mmdata",
        "convert-mmc4",
        SAMPLE,
        "--images",
        images,
        "--output",
        shards,
        "--num-shards",
        "4",
    )
    title("2. the shards are checked, to the last byte of every picture")
    run("mmdata", "validate", shards)
    title("3. one document, as text")
    run("mmdata", "show", shards, "--random", "1", "--seed", "3")
    title("4. what validate says of a damaged copy (other readers stop there, in silence)")
    damage(shards, out / "damaged")
    run("mmdata", "validate", out / "damaged", expect=1)


def look(out: Path) -> None:
    """All of it on one page, for a browser."""
    title("last: the whole dataset on one page")
    run("mmdata", "report", out / "shards", "--output", out / "report.html", "--title",
        "The MMC4 sample")  # fmt: skip


def converse(out: Path) -> None:
    """Conversations with pictures, split, checked, shown."""
    folder = out / "conversations"
    title("5. conversations become shards too: which text a picture belongs to is kept")
    run("mmdata", "convert-custom", "examples/conversations", "--image-root", "examples",
        "--output", folder, "--split", "train=0.7,val=0.3")  # fmt: skip
    run("mmdata", "validate", folder / "train", folder / "val")
    run("mmdata", "show", folder / "train", "--random", "1", "--seed", "1")


def train(out: Path) -> None:
    """A tiny Flamingo on those shards: trained, stopped, resumed, asked."""
    shards, models, folder = out / "shards", out / "models", out / "run"
    title("6. a tiny CLIP, a tiny language model and a tokenizer, made here")
    run("python", "examples/make_tiny_models.py", models)
    common: Sequence[str | Path] = (
        "mmdata", "train", "--mmc4-shards", shards, "--lm-path", models / "lm",
        "--vision-encoder-path", models / "clip", "--run-name", folder,
        "--mmc4-min-image-bytes", "0", "--batch-size-mmc4", "8", "--learning-rate", "3e-3",
        "--warmup-steps", "5", "--offline",
    )  # fmt: skip
    title("7. what the model will see: pictures beside their tags")
    run(*common, "--dry-run")
    title(f"8. {STEPS} steps of training")
    run(*common, "--max-steps", str(STEPS))
    title("9. ten more, from the checkpoint")
    run(*common, "--max-steps", str(STEPS + 10))
    title("10. and it is asked about a picture (it is tiny and random: expect no sense)")
    picture = sorted((ROOT / SAMPLE / "images" / "0").iterdir())[0].relative_to(ROOT)
    run("mmdata", "generate", "--checkpoint", folder, "--image", picture,
        "--prompt", "<image>Preheat the", "--offline")  # fmt: skip
    report(folder)


def report(folder: Path) -> None:
    """Both losses, and where to look."""
    lines = [
        json.loads(line) for line in (ROOT / folder / "metrics.jsonl").read_text().splitlines()
    ]
    first, last = end_losses_of(lines)["mmc4"]
    title(f"training loss {first} -> {last}; mmdata train-report {folder} shows it")
    if last.loss >= first.loss - 0.5:
        sys.exit("demo: the loss did not fall")


def main() -> None:
    """Everything into one folder, which is made anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, nargs="?", default=Path("build/demo"))
    parser.add_argument("--no-training", action="store_true", help="stop after the shards")
    arguments = parser.parse_args()
    shutil.rmtree(ROOT / arguments.output, ignore_errors=True)
    start = time.monotonic()
    convert(arguments.output)
    converse(arguments.output)
    if not arguments.no_training:
        train(arguments.output)
    look(arguments.output)
    print(
        f"\ndone in {time.monotonic() - start:.0f} s; everything is in {arguments.output}/; "
        f"open {arguments.output}/report.html"
    )


if __name__ == "__main__":
    main()
