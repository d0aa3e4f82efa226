"""The samples of the training benchmark: the same ones for every loop that is measured.

32 documents of 256 tokens with 1 to 6 images (median 2) and 64 pairs of 8 to 32 tokens a step, with
random ids and pixels; a few steps of them, which repeat. Packed, the same samples lie in sequences
of 1024 tokens: full documents gain nothing by that, pairs lose their padding.
"""

import random
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

import torch
from torch import Tensor

from benchmarks.train_gpu_shapes import Shape
from flamingo.data.batch import Batch, SourcedExample, collate
from flamingo.data.damage import DamageCount
from flamingo.data.order import Position
from flamingo.data.packing import NextFit
from flamingo.data.prepare import Example
from flamingo.data.text_layout import DecoderText
from flamingo.train.loaders import StreamLoader
from mmdata.training_view.plans import RecordPlan
from mmdata.training_view.records import RecordRule
from mmdata.training_view.sequence import MediaTokenizer

NUM_STEPS = 4
PACK_TOKENS = 1024
MAX_IMAGES = 6
#: Documents of 32 with so many images: 81 in all, median 2.
IMAGES_PER_DOCUMENT = [1] * 10 + [2] * 10 + [3] * 4 + [4] * 3 + [5] * 3 + [6] * 2
#: OpenFlamingo's multipliers.
MULTIPLIERS = {"laion": 0.2, "mmc4": 1.0}
_RULES: dict[str, RecordRule] = {"laion": "caption", "mmc4": "interleaved"}
Media = Literal["pixels", "features"]


@dataclass(frozen=True, slots=True)
class Size:
    """Of a step.

    Attributes:
        documents: of the interleaved stream.
        pairs: of the caption stream.
        document_tokens: of each document.
        pair_tokens: of a pair, at most.
    """

    documents: int = 32
    pairs: int = 64
    document_tokens: int = 256
    pair_tokens: int = 32


def make_steps(
    shape: Shape,
    tokenizer: MediaTokenizer,
    size: Size,
    *,
    media: Media = "pixels",
    packed: bool = False,
) -> dict[str, list[Batch]]:
    """Each stream's batch of a few steps; equal samples for equal sizes, packed or not."""
    steps: dict[str, list[Batch]] = {"laion": [], "mmc4": []}
    draw = random.Random(0)
    torch.manual_seed(0)
    for number in range(NUM_STEPS):
        counts = (IMAGES_PER_DOCUMENT * (size.documents // 32 + 1))[:]
        draw.shuffle(counts)
        documents = [
            _document(tokenizer, draw, size.document_tokens, count)
            for count in counts[: size.documents]
        ]
        pairs = [
            _document(tokenizer, draw, draw.randint(8, size.pair_tokens), 1)
            for _ in range(size.pairs)
        ]
        for name, ids in (("laion", pairs), ("mmc4", documents)):
            samples = [
                _sample(shape, tokenizer, one, media, f"{number}-{k}") for k, one in enumerate(ids)
            ]
            steps[name].append(_batch(name, samples, tokenizer, packed=packed))
    return steps


def loaders(steps: dict[str, list[Batch]]) -> list[StreamLoader]:
    """What the trainer draws from, without end and without waiting."""
    return [
        StreamLoader(
            name,
            _endless(batches),
            MULTIPLIERS[name],
            Position(),
            lambda name=name: DamageCount(name, 0.0),  # type: ignore[misc]
            has_features=batches[0].features is not None,
        )
        for name, batches in steps.items()
    ]


def _endless(batches: list[Batch]) -> Generator[list[Batch], None, None]:
    for batch in cycle(batches):
        yield [batch]


def _document(
    tokenizer: MediaTokenizer, draw: random.Random, length: int, num_images: int
) -> list[int]:
    """Ids of a text with a tag every so often, each behind the end of the chunk before."""
    tags = {length * k // num_images for k in range(num_images)}
    ends = {tag - 1 for tag in tags if tag} | {length - 1}
    special = {tokenizer.image_id, tokenizer.endofchunk_id, tokenizer.pad_id}
    words = [one for one in range(500) if one not in special]
    ids = []
    for position in range(length):
        if position in tags:
            ids.append(tokenizer.image_id)
        elif position in ends:
            ids.append(tokenizer.endofchunk_id)
        else:
            ids.append(draw.choice(words))
    return ids


def _sample(
    shape: Shape, tokenizer: MediaTokenizer, ids: list[int], media: Media, key: str
) -> SourcedExample:
    num_images = ids.count(tokenizer.image_id)
    plan = RecordPlan(input_ids=ids, images=list(range(num_images)))
    pictures = [_medium(shape, media) for _ in range(num_images)]
    return SourcedExample(key, "random", Example(plan, pictures, [False] * num_images))


def _medium(shape: Shape, media: Media) -> Tensor:
    if media == "pixels":
        side = shape.image_size
        return torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
    patches = shape.grid[0] * shape.grid[1]
    return torch.randn(patches, shape.clip["vision_cfg"]["width"]).bfloat16()


def _batch(
    name: str, samples: list[SourcedExample], tokenizer: MediaTokenizer, *, packed: bool
) -> Batch:
    return collate(
        samples,
        DecoderText(tokenizer),
        _RULES[name],
        position=Position(),
        drops=Counter(),
        per_sequence=list(_packed(samples)) if packed else None,
    )


def _packed(samples: list[SourcedExample]) -> Iterator[int]:
    """Samples of each sequence."""
    row: NextFit[SourcedExample] = NextFit(PACK_TOKENS)
    for sample in samples:
        closed = row.add(sample, len(sample.example.plan.input_ids))
        if closed:
            yield len(closed)
    yield len(row.close())
