"""Copies of a checkpoint's tensors in host memory: kept, filled anew, and where from."""

import torch
from torch import Tensor, nn

from flamingo.train.checkpoint.staging import HostCopies, can_be_staged


def test_tensors_of_a_quantised_kind_are_not_staged() -> None:
    quantised = torch.zeros(2).as_subclass(type("Quantised", (Tensor,), {}))
    assert can_be_staged([torch.zeros(2), nn.Parameter(torch.zeros(2))])
    assert not can_be_staged([torch.zeros(2), quantised])


def test_copies_are_kept_and_filled_anew() -> None:
    copies, weight = HostCopies(), nn.Parameter(torch.arange(6.0).view(2, 3).t())
    first = copies.fill({"a": weight, "step": torch.tensor(1.0), "gone": torch.ones(2)})
    copies.wait()
    assert torch.equal(first["a"], weight)
    assert not first["a"].requires_grad
    place = first["a"].data_ptr()
    with torch.no_grad():
        weight.add_(1)
    assert not torch.equal(first["a"], weight)  # what training changes is not in it
    again = copies.fill({"a": weight, "step": torch.ones(3, dtype=torch.int)})
    assert again["a"].data_ptr() == place
    assert torch.equal(again["a"], weight)
    assert again["step"].tolist() == [1, 1, 1]  # of another shape and type: room of its own
    assert again.keys() == {"a", "step"}
