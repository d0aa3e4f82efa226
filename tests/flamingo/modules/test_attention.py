"""Attention without masks is attention with them, and reads nothing from the device."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules import attention
from flamingo.modules.documents import Documents, document_bounds
from flamingo.modules.loss import IGNORED, find_target_positions
from flamingo.modules.packed import find_packing
from tests.flamingo.models.flamingo.tiny_lms import EOC, IMAGE, PAD, make_flamingo, make_lm

#: LMs whose attention transformers calls eager: a mask is what causality is told by.
EAGER = ("gptj", "gpt_neo", "mpt")
WINDOWED = ("mistral",)


class _Seen(TorchDispatchMode):
    """Notes what is read from the device, and masks of positions by positions that are made."""

    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it so
        self.reads: list[str] = []
        self.masks = 0
        self._length = length

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default or "nonzero" in str(func):
            self.reads.append(str(func))
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dtype == torch.bool:
            self.masks += out.shape[-2:] == (self._length, self._length)
        return out


def batches() -> list[dict[str, Any]]:
    """Five batches of three rows, padded on the right by unequal lengths."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for step in range(5):
        lengths = [12 + step, 7, 3 + step]
        ids = torch.randint(3, EOC, (3, max(lengths)), generator=generator)
        ids[:, 0] = IMAGE
        mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
        ids = ids.masked_fill(mask == 0, PAD)
        labels = ids.masked_fill((mask == 0) | (ids == IMAGE), IGNORED)
        found.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "labels": labels,
                "target_positions": find_target_positions(labels),
                "images": torch.randn(3, 3, 64, 64, generator=generator),
                "images_per_sample": [1, 1, 1],
                "check": False,
            }
        )
    return found


def five_steps(model: Flamingo, **how: Any) -> list[Tensor]:
    """Losses and gradients of five steps."""
    model.train()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    found = []
    for batch in batches():
        loss = model(**batch, **how).loss
        loss.backward()
        found += [loss.detach(), *(one.grad.clone() for one in trained if one.grad is not None)]
        optimizer.step()
        optimizer.zero_grad()
    return found


def test_rows_padded_on_the_right_need_no_mask_and_train_to_the_same_bits(lm_family: str) -> None:
    expected = five_steps(make_flamingo(lm_family))
    found = five_steps(make_flamingo(lm_family), right_padded=True)
    assert len(expected) == len(found) > 5
    assert all(map(torch.equal, found, expected))


def test_a_pass_reads_nothing_and_only_those_make_a_mask_that_need_one(lm_family: str) -> None:
    model = make_flamingo(lm_family)
    batch = batches()[0]
    for how, masks in (({}, 1), ({"right_padded": True}, 0)):
        with _Seen(batch["input_ids"].shape[1]) as seen:
            model(**batch, **how).loss.backward()
        if lm_family in EAGER:
            assert seen.reads == []
            assert seen.masks
        elif lm_family not in WINDOWED:
            assert len(seen.reads) >= masks
            assert bool(seen.masks) == bool(masks)
    assert seen.reads == []


def test_packed_documents_are_read_from_no_device(lm_family: str) -> None:
    model = make_flamingo(lm_family)
    model.allow_packing()
    packing = model._packing
    assert packing is not None
    assert packing.way == ("mask" if lm_family in EAGER else "bounds")
    index = torch.tensor([[0] * 6 + [1] * 5 + [2] * 4, [0] * 9 + [1] * 4 + [-1] * 2])
    ids = torch.randint(3, EOC, index.shape).masked_fill(index < 0, PAD)
    bounds = document_bounds(index)
    assert bounds.tolist() == [0, 6, 11, 15, 24, 28, 30]
    with _Seen(ids.shape[1]) as seen:
        model(
            ids,
            document_index=index,
            document_bounds=bounds,
            document_lengths=bounds.diff().tolist(),
            check=False,
        ).logits.sum().backward()
    assert seen.reads == []
    assert bool(seen.masks) == (lm_family in EAGER)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("of_keys", [4, 2])
@pytest.mark.parametrize("way", ["each alone", "varlen"])
def test_documents_attend_as_under_a_mask(way: str, of_keys: int, window: int | None) -> None:
    pytest.importorskip("torch.nn.attention.varlen")
    from tests.flamingo import varlen_kernel

    module = nn.Module()
    module.num_key_value_groups = 4 // of_keys  # type: ignore[assignment]
    index = torch.tensor([[0] * 6 + [1] + [2] * 8, [0] * 9 + [1] * 4 + [-1] * 2])
    made = Documents.of(index)
    documents = Documents(made.index, made.bounds, made.lengths, made.longest, window)
    q, k, v = (torch.randn(2, heads, 15, 8, requires_grad=True) for heads in (4, of_keys, of_keys))
    varlen_kernel.CALLS.clear()
    expected, _ = sdpa_attention_forward(module, q, k, v, documents.mask, scaling=0.3)
    if way == "varlen":
        found = attention._varlen(q, k, v, documents, 0.3)
        assert [(30, 6, 16, (-1 if window is None else window - 1, 0))] == varlen_kernel.CALLS
    else:
        found, _ = attention._attention(module, q, k, v, documents, scaling=0.3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    upstream = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(found, [q, k, v], upstream),
        torch.autograd.grad(expected, [q, k, v], upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_with_dropout_documents_get_a_mask() -> None:
    """What varlen has no argument for."""
    index = torch.tensor([[0] * 4 + [1] * 4])
    documents = Documents.of(index)
    query = torch.randn(1, 2, 8, 8)
    torch.manual_seed(1)
    found, _ = attention._attention(nn.Module(), query, query, query, documents, dropout=0.5)
    torch.manual_seed(1)
    expected, _ = sdpa_attention_forward(
        nn.Module(), query, query, query, documents.mask, dropout=0.5
    )
    assert torch.equal(found, expected)


def test_an_lm_with_a_kernel_of_somebodys_choice_keeps_it() -> None:
    lm: Any = make_lm("llama")
    lm.set_attn_implementation("eager")
    assert not attention.adopt_attention(lm)
    assert lm.config._attn_implementation == "eager"
    assert find_packing(lm).way == "mask"
