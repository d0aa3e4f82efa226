"""One rank as a process: reads its part of a stream's global batches and writes down what it saw.

Each step is a line {"step", "samples": [[key, digest of tokens and pixels]], "position", "tars"},
flushed, so that what was seen before a SIGKILL is known; "tars" is how often the process has opened
which, as the interpreter tells. With "position", it starts there.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from itertools import islice
from typing import Any

import torch
from transformers import AutoTokenizer

from flamingo.data.batch import Batch
from flamingo.data.config import StreamConfig
from flamingo.data.order import Position
from flamingo.data.stream import Stream
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import add_media_tokens


def read_part(told: dict[str, Any]) -> None:
    """Be a rank, as told."""
    torch.set_num_threads(1)
    tars: Counter[str] = Counter()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".tar"):
            tars[os.path.basename(str(arguments[0]))] += 1

    sys.addaudithook(note)
    hf_tokenizer = AutoTokenizer.from_pretrained(told["tokenizer"])
    add_media_tokens(hf_tokenizer)
    stream = Stream(
        StreamConfig(**told["config"] | {"shards": tuple(told["config"]["shards"])}),
        MediaTokenizer(hf_tokenizer),
        seed=told.get("seed", 7),
        rank=told["rank"],
        world=told["world"],
    )
    start = Position.of_record(told["position"]) if told.get("position") else None
    first = told.get("first", 0)
    with open(told["output"], "a", encoding="utf-8") as file:
        steps = stream.steps(start)
        for number, step in enumerate(islice(steps, told["steps"] - first), first):
            line = {
                "step": number,
                "samples": [sample for batch in step for sample in samples_of(batch)],
                "position": step[-1].position.record(),
                "tars": dict(tars),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()
        steps.close()


def samples_of(batch: Batch) -> list[list[str]]:
    """Key and digest of each sample, whatever it is padded to."""
    found, image = [], 0
    for row, key in enumerate(batch.keys):
        number = int(batch.images_per_sample[row])
        length = int(batch.attention_mask[row].sum())
        digest = hashlib.sha256()
        for part in (
            batch.pixels[image : image + number],
            batch.input_ids[row, :length],
            batch.labels[row, :length],
        ):
            digest.update(part.contiguous().numpy().tobytes())
        found.append([key, digest.hexdigest()])
        image += number
    return found
