"""Recomputation: which blocks run again in the backward pass, what they keep, equal gradients."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.recompute import KEPT, Recompute
from tests.flamingo.models.flamingo.tiny_lms import PAD, make_flamingo, prompts

POLICIES: tuple[Recompute | None, ...] = (None, "selective", "full")


class CountOperations(TorchDispatchMode):
    """Matrix products and attention (what `selective` keeps), and all else."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = self.others = 0

    def __torch_dispatch__(
        self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation in KEPT:
            self.kept += 1
        else:
            self.others += 1
        return operation(*args, **(kwargs or {}))


def blocks(model: Flamingo) -> dict[str, nn.Module]:
    found = {f"resampler {i}": layer for i, layer in enumerate(model.perceiver.layers)}
    for number, layer in enumerate(model.decoder_blocks):
        found[f"decoder {number}"] = layer.decoder_layer
        if layer.gated_cross_attn_layer is not None:
            found[f"cross-attention {number}"] = layer.gated_cross_attn_layer
    return found


def loss_of(model: Flamingo) -> Tensor:
    ids, mask, images, counts = prompts()
    labels = ids.masked_fill(ids == PAD, -100)
    return model(ids, mask, labels, images=images, images_per_sample=counts).loss


@pytest.mark.parametrize("policy", POLICIES)
def test_each_block_runs_once_more_where_it_is_recomputed(policy: Recompute | None) -> None:
    model = make_flamingo("llama").train()
    model.set_activation_checkpointing(policy)
    runs: Counter[str] = Counter()
    for name, block in blocks(model).items():
        # Before it runs: a block that is run again stops as soon as all is there that was missed.
        block.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    loss = loss_of(model)
    assert set(runs.values()) == {1}
    loss.backward()
    # Layers in front of the first cross-attention have nothing behind them that trains but the
    # media-token rows, which every layer's input comes from.
    assert set(runs.values()) == {1 if policy is None else 2}
    assert len(runs) == 6 + 4 + 2
    with torch.no_grad():
        loss_of(model)
    assert set(runs.values()) == {2 if policy is None else 3}


def test_selective_computes_no_matrix_product_again() -> None:
    counts = {}
    for policy in POLICIES:
        model = make_flamingo("llama").train()
        model.set_activation_checkpointing(policy)
        loss = loss_of(model)
        with CountOperations() as counted:
            loss.backward()
        counts[policy] = counted
    assert counts["selective"].kept == counts[None].kept
    assert counts["full"].kept > counts[None].kept
    assert counts["selective"].others > counts[None].others


def test_what_is_saved_for_the_backward_pass_shrinks() -> None:
    saved = {}
    for policy in POLICIES:
        model = make_flamingo("llama", freeze=()).train()
        model.set_activation_checkpointing(policy)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        alive: dict[int, int] = {}

        def keep(
            tensor: Tensor, alive: dict[int, int] = alive, weights: set[int] = weights
        ) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                alive[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss_of(model)
        saved[policy] = sum(alive.values())
    assert saved["full"] < 0.5 * saved[None]
    assert saved["full"] < saved["selective"] < saved[None]


@pytest.mark.parametrize("policy", ["selective", "full"])
@pytest.mark.parametrize("freeze", [("vision", "lm"), ()])
def test_gradients_are_the_same(policy: Recompute, freeze: tuple[str, ...]) -> None:
    found = []
    for one in (None, policy):
        model = make_flamingo("opt", freeze=freeze).train()
        model.set_activation_checkpointing(one)
        loss_of(model).backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, gradient in found[0].items():
        other = found[1][name]
        assert gradient is not None, name
        assert other is not None, name
        torch.testing.assert_close(other, gradient, rtol=0, atol=1e-6)


def test_a_tower_that_trains_is_recomputed_too() -> None:
    model = make_flamingo("opt", freeze=("lm",)).train()
    model.set_activation_checkpointing("full")
    runs = []
    first: Any = model.vision_encoder.transformer.resblocks[0]
    first.register_forward_pre_hook(lambda *_: runs.append(1))
    loss_of(model).backward()
    assert len(runs) == 2
