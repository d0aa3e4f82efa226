"""The model under DDP and FSDP2, on two CPU ranks; one of them has no image in its batch."""

import pytest
import torch

from tests.flamingo.model.tiny_lms import make_flamingo
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
