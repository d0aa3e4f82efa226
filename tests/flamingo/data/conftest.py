"""A tokenizer, and shards whose pictures can be told apart: each is of one colour.

tokenizer          MediaTokenizer of the parity fixtures
make_page(...)     a document whose image i has the colour `colour_of(page, i)`
write_pages(...)   a conversion of such documents
"""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from flamingo.data.config import StreamConfig
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import add_media_tokens
from tests.conftest import ROOT
from tests.shard_factory import Dataset, sha256

PARITY = ROOT / "tests" / "assets" / "parity_text"
SIDE = 8


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def hf_tokenizer() -> Any:
    """With the media tokens, added in OpenFlamingo's order."""
    tokenizer = AutoTokenizer.from_pretrained(PARITY / "tokenizer")
    add_media_tokens(tokenizer)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer(hf_tokenizer: Any) -> MediaTokenizer:
    return MediaTokenizer(hf_tokenizer)


def colour_of(page: int, image: int) -> tuple[int, int, int]:
    return (page * 5 % 256, image * 40, 77)


def make_picture(page: int, image: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour_of(page, image)).save(sink, "PNG")
    return sink.getvalue()


def make_page(
    page: int,
    matched: list[int],
    *,
    sentences: int = 3,
    similarity: float = 0.35,
    alignment: str = "assigned",
    source: str = "mmc4",
    texts: list[str] | None = None,
) -> dict[str, Any]:
    """A document whose images belong to `matched`, in that order in the document."""
    listed = []
    for image, place in enumerate(matched):
        data = make_picture(page, image)
        listed.append(
            {
                "image_name": f"{page}_{image}.png",
                "matched_text_index": place,
                "matched_sim": similarity,
                "image_base64": base64.b64encode(data).decode(),
                "width": SIDE,
                "height": SIDE,
                "format": "png",
                "sha256": sha256(data),
            }
        )
    texts = texts or [f"Sentence {number} of page {page}." for number in range(sentences)]
    return {
        "format_version": "1",
        "text_list": texts,
        "image_info": listed,
        "similarity_matrix": [
            [similarity if place == column else 0.1 for column in range(len(texts))]
            for place in matched
        ],
        "similarity_source": source,
        "alignment": alignment,
    }


def write_pages(
    folder: Path, shards: list[list[dict[str, Any] | bytes]], *, kind: str = "mmc4"
) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(folder, shards, kind)
    dataset.write()
    return dataset


@pytest.fixture
def pages(tmp_path: Path) -> Dataset:
    """Five shards of seven documents with two images each, one of the shards empty."""
    shards: list[list[dict[str, Any] | bytes]] = [
        [make_page(shard * 7 + number, [0, 2]) for number in range(7)] for shard in range(5)
    ]
    shards.insert(2, [])
    return write_pages(tmp_path / "pages", shards)


def config_of(*shards: object, **changes: Any) -> StreamConfig:
    """Small pictures, no limit on their bytes."""
    defaults: dict[str, Any] = {
        "name": "mmc4",
        "shards": tuple(str(shard) for shard in shards),
        "batch_size": 4,
        "image_size": SIDE,
        "min_image_bytes": 0,
        "decode_threads": 2,
        "shuffle_shards": 2,
    }
    return StreamConfig(**(defaults | changes))
