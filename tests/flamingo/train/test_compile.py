"""Blocks are compiled, each kind once, whatever the number of images and the length of the text.

No code is made here: blocks are traced, and run as they were traced.
"""

import random
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from flamingo.train import compile as compiling
from flamingo.train.compile import compile_blocks
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, IMAGE, PAD, make_flamingo
from tests.flamingo.modules.test_recompute import loss_of

from .eager import without_compiler

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    with without_compiler():
        yield
    torch._dynamo.reset()


@pytest.mark.matrix
def test_a_compiled_model_is_the_same_model_and_blocks_of_a_kind_are_compiled_once() -> None:
    plain, compiled = make_flamingo("gpt_neox").train(), make_flamingo("gpt_neox").train()
    names = list(compiled.state_dict())
    depth = len(compiled.vision_encoder.transformer.resblocks)  # type: ignore[union-attr,arg-type]
    assert compile_blocks(compiled) == depth + 6 + 2 + 4
    assert list(compiled.state_dict()) == names
    for model in (plain, compiled):
        loss_of(model).backward()
    for (name, one), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, msg=name)
    graphs = counters["stats"]["unique_graphs"]
    assert 4 <= graphs <= 8  # four kinds, a few of them in two forms
    assert dict(counters["graph_break"]) == {}
    ids = torch.tensor([[58, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]])
    images = torch.randn(1, 3, 64, 64)
    expected = plain(ids, images=images, images_per_sample=[1]).logits
    torch.testing.assert_close(compiled(ids, images=images, images_per_sample=[1]).logits, expected)
    ids, images = ids.repeat(3, 2), torch.randn(6, 3, 64, 64)
    expected = plain(ids, images=images, images_per_sample=[2, 2, 2]).logits
    graphs = counters["stats"]["unique_graphs"]
    torch.testing.assert_close(
        compiled(ids, images=images, images_per_sample=[2, 2, 2]).logits, expected
    )
    assert compiling.BACKEND == "eager"


STEPS = 50
#: Every kind of block once; a second time where one picture is all there is (no mask), where a
#: batch is one picture or one text, and for latents that are still one row for all pictures.
MOST_GRAPHS = 14


def ragged_texts(draw: random.Random, *, least: int = 2) -> tuple[torch.Tensor, list[int]]:
    """Texts padded to the longest, each with some pictures; how many each has."""
    counts = [draw.randint(0, 3) for _ in range(draw.randint(least, 4))]
    rows = []
    for count in counts:
        words = [draw.randint(3, 50) for _ in range(draw.randint(1, 20))]
        rows.append([IMAGE] * count + words)
    length = max(map(len, rows))
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows]), counts


@pytest.mark.parametrize(
    "family",
    [one if one == "gpt_neox" else pytest.param(one, marks=pytest.mark.matrix) for one in CONFIGS],
)
def test_a_decoder_block_is_one_graph_over_ragged_steps(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_flamingo(family)
    blocks = [part for part in model.parts() if part.label == "decoder blocks"]
    monkeypatch.setattr(model, "parts", lambda: iter(blocks))
    assert compile_blocks(model) == 4
    draw = random.Random(0)
    for _ in range(STEPS):
        ids, _ = ragged_texts(draw)
        model.lang_encoder(ids, attention_mask=(ids != PAD).long(), use_cache=False)
    assert counters["stats"]["unique_graphs"] == 1
    assert dict(counters["graph_break"]) == {}


@pytest.mark.matrix
def test_all_blocks_stay_few_graphs_over_ragged_steps() -> None:
    model = make_flamingo("gpt_neox").train()
    compile_blocks(model)
    draw, graphs = random.Random(0), []
    for step in range(STEPS):
        ids, counts = ragged_texts(draw, least=1)
        if step == 7:  # a rank without pictures
            ids, counts = ids.masked_fill(ids == IMAGE, 5), [0] * len(counts)
        images = torch.randn(sum(counts), 3, 64, 64) if sum(counts) else None
        media = {"images": images, "images_per_sample": counts, "keep_graph": True}
        model(ids, (ids != PAD).long(), ids, **media).loss.backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[-1] <= MOST_GRAPHS
    assert graphs[STEPS // 2] == graphs[-1]  # it ends
    assert dict(counters["graph_break"]) == {}
