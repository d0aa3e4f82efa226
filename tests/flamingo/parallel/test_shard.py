"""The model under DDP and FSDP2, on two CPU ranks; one of them has no image in its batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from flamingo.modules.adapter_settings import AdapterSettings
from flamingo.modules.adapters import inject_adapters
from flamingo.modules.quantised import quantise_linears, quantised_names
from flamingo.parallel.shard import shard_model
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo, make_lm, open_gates, wrap
from tests.flamingo.parallel.rank_process import FAMILIES, KINDS, batch_of, gradients


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_two_ranks_give_the_gradients_of_one_process(two_ranks, family, kind):
    model = make_flamingo(family).train()
    for rank in (0, 1):
        (model(**batch_of(rank)).loss / 2).backward()  # ranks are averaged
    expected = gradients(model)
    found = two_ranks[1]["gradients"][f"{family}.{kind}"]
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_group_of_one_leaves_matrices_of_four_bits_whole(tmp_path: Path) -> None:
    lm = make_lm("gpt_neox")
    quantise_linears(lm)
    inject_adapters(lm, AdapterSettings(kind="qlora", r=2, targets=("query_key_value",)))
    model = wrap(lm).train()
    open_gates(model, 0.5)
    model(**batch_of(0)).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        shard_model(model, init_device_mesh("cpu", (1,)))
        assert len(quantised_names(model)) == 16
        model(**batch_of(0)).loss.backward()
        found = gradients(model)
    finally:
        dist.destroy_process_group()
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
