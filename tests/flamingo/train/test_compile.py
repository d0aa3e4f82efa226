"""Blocks are compiled, each kind once, whatever the number of images and the length of the text."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from flamingo.train import compile as compiling
from flamingo.train.compile import compile_blocks
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
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
