"""Copies of a checkpoint's tensors in host memory: kept, filled anew, and where from."""

import torch
from torch import Tensor, nn

from flamingo.train.checkpoint.staging import HostCopies, can_be_staged
from tests.flamingo.gpu import pretended_gpu


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


def test_a_gpus_tensors_are_copied_without_a_wait_but_the_threads_own() -> None:
    with pretended_gpu() as watch:
        weight = torch.arange(50_000, dtype=torch.float32, device="cuda")
        copies = HostCopies()
        for _ in range(2):
            watch.clear()
            found = copies.fill({"weight": weight, "offloaded": torch.ones(3)})
            seen = [watch.blocking, watch.waits, watch.reads, watch.mixed]
            assert [dict(one) for one in seen] == [{}] * 4
            assert sum(watch.queued.values()) == 1
        copies.wait()
        assert sum(watch.waits.values()) == 1
    assert torch.equal(found["weight"], torch.arange(50_000, dtype=torch.float32))
