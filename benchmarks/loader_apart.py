"""The loader alone in a process: how soon its first batch is there, and what memory it takes.

    python -m benchmarks.loader_apart SHARDS [--window 64]

Prints a line of JSON. Nothing is imported here that a loader does not need.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from flamingo.data.config import StreamConfig
from flamingo.data.stream import Stream
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import add_media_tokens

SIZE_PX, BATCH, SEED = 224, 8, 0
TOKENIZER = Path("tests/assets/parity_text/tokenizer")
NUM_BATCHES = 40


def load_tokenizer() -> Any:
    """A small one, with the media tokens."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    add_media_tokens(tokenizer)
    return tokenizer


def our_stream(shards: Path, tokenizer: Any, **changes: Any) -> Stream:
    """The loader as the trainer has it, in one thread."""
    options: dict[str, Any] = {
        "name": "mmc4",
        "shards": (str(shards),),
        "batch_size": BATCH,
        "image_size": SIZE_PX,
        "decode_threads": 0,
        "lanes": 1,
    }
    return Stream(StreamConfig(**options | changes), MediaTokenizer(tokenizer), seed=SEED)


def private_bytes() -> int:
    """Of this process: what it does not share with the page cache."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return 1024 * (sizes["Private_Dirty"] + sizes.get("Swap", 0))


def measure_start(shards: Path, windows: int) -> dict[str, float]:
    """In a process of its own: seconds to the first batch, and memory after some more."""
    tokenizer = load_tokenizer()
    loaded = time.perf_counter()
    one = our_stream(shards, tokenizer, shuffle_shards=windows, decode_threads=4)
    batches = one.batches()
    next(batches)
    first = time.perf_counter() - loaded
    peak = private_bytes()
    for _ in range(NUM_BATCHES):
        next(batches)
        peak = max(peak, private_bytes())
    batches.close()  # type: ignore[attr-defined]
    return {"seconds": first, "bytes": peak}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--window", type=int, default=64, help="shards")
    options = parser.parse_args()
    print(json.dumps(measure_start(options.shards, options.window)))


if __name__ == "__main__":
    main()
