"""What the loader is measured against: OpenFlamingo's way, and a floor.

`openflamingo_way` is written from the description of what OpenFlamingo's loader does to a shard of
documents: tar members in order, `json`, every image of a document over 10 kB decoded by Pillow, the
one-to-one assignment, the threshold, at most 6 images; each of these resized with Pillow's bicubic
filter, cropped and normalised in float; padded to 6 images; the joined text tokenised to 256 padded
tokens; the rules on how many images are left, last of all; labels masked token by token. What it
does beside that (a shuffle buffer, worker processes) is left out, in its favour.

`floor` is the least that can be done for the same training samples: it knows beforehand which
images are used and where their base64 lies in the tar; it decodes these and resizes each once.
"""

import base64
import io
import json
import mmap
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pybase64
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from torchvision.transforms import ToTensor as ToFloat

from flamingo.data.decode import decode_image
from mmdata.training_view.selection import coin

MAX_IMAGES, MAX_TOKENS, THRESHOLD = 6, 256, 0.24
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class OpenFlamingoWay:
    """Samples of shards as OpenFlamingo makes them.

    Attributes:
        decoded, resized, used: images so far.

    Args:
        tokenizer: of transformers, with the media tokens.
        size_px: side of the square.
        seed: of the coin for documents of one image, the same as ours.
    """

    def __init__(self, tokenizer: Any, size_px: int, seed: int) -> None:
        self._tokenizer, self._seed, self._size_px = tokenizer, seed, size_px
        self._media, self._end = tokenizer.convert_tokens_to_ids(["<image>", "<|endofchunk|>"])
        self._transform = Compose(
            [
                Resize(size_px, InterpolationMode.BICUBIC),
                CenterCrop(size_px),
                ToFloat(),
                Normalize(MEAN, STD),
            ]
        )
        self.decoded = self.resized = self.used = 0

    def samples(self, shards: Sequence[Path]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(images (6, 3, S, S) float, ids (256,)) of each document that is used."""
        for shard in shards:
            with tarfile.open(shard, "r|") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    assert content is not None  # noqa: S101 - shards hold files only
                    key = member.name.partition(".")[0]
                    found = self._sample(json.loads(content.read()), key)
                    if found is not None:
                        yield found

    def _sample(
        self, document: dict[str, Any], key: str
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        images, rows = [], []
        for row, info in enumerate(document["image_info"]):
            data = base64.b64decode(info["image_base64"])
            if len(data) // 1000 <= 10:
                continue
            images.append(Image.open(io.BytesIO(data)).convert("RGB"))
            rows.append(row)
            self.decoded += 1
        if not images:
            return None
        matrix = np.array(document["similarity_matrix"])[rows]
        texts = list(document["text_list"])
        kept: list[torch.Tensor] = []
        for at, sentence in zip(*linear_sum_assignment(-matrix), strict=True):
            if matrix[at, sentence] < THRESHOLD or len(kept) == MAX_IMAGES:
                continue
            kept.append(self._transform(images[at]))
            texts[sentence] = f"<|endofchunk|><image>{texts[sentence]}"
        if not kept:
            return None
        self.resized += len(kept)
        stack = torch.stack(kept)
        if len(kept) < MAX_IMAGES:
            empty = torch.zeros(MAX_IMAGES - len(kept), 3, self._size_px, self._size_px)
            stack = torch.cat([stack, empty])
        text = " ".join(texts).replace("<|endofchunk|>", "", 1)
        text = text.replace(" <|endofchunk|>", "<|endofchunk|>").replace("<image> ", "<image>")
        text = text.replace(" <image>", "<image>") + "<|endofchunk|>" + self._tokenizer.eos_token
        ids = self._tokenizer(
            text,
            max_length=MAX_TOKENS,
            truncation=True,
            padding="max_length",
            return_tensors="pt",
        )["input_ids"][0]
        num_images = int((ids == self._media).sum())
        if num_images == 0 or (num_images == 1 and coin(self._seed, "mmc4", 0, key) >= 0.5):
            return None
        self.used += num_images
        return stack, ids

    def batch(self, samples: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Stack some samples and mask their labels; returns these."""
        torch.stack([images for images, _ in samples])
        labels = torch.stack([ids for _, ids in samples]).clone()
        pad = self._tokenizer.pad_token_id
        labels[labels == pad] = -100
        for row in labels:
            position = 0
            while position < len(row) and row[position] != self._media:
                row[position] = -100
                position += 1
            for end in (row == self._end).nonzero().flatten().tolist():
                position = end + 1
                while position < len(row) and row[position] != self._media:
                    row[position] = -100
                    position += 1
        labels[labels == self._media] = -100
        return labels


@dataclass(frozen=True, slots=True)
class Place:
    """Where the base64 of an image that is used lies."""

    shard: Path
    start: int
    end: int


def floor(places: Sequence[Place], size_px: int) -> int:
    """Read, decode and resize the images that are used; returns a sum of their first pixels."""
    total = 0
    maps: dict[Path, mmap.mmap] = {}
    for place in places:
        if place.shard not in maps:
            with open(place.shard, "rb") as file:
                maps[place.shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        text = maps[place.shard][place.start : place.end]
        total += int(decode_image(pybase64.b64decode(text), size_px)[0, 0, 0])
    return total
