"""Fixtures of the model tests.

parity            a ParityCase per fixture: the reference's inputs, weights and outputs
parity_model      our model with the reference's weights, built once per fixture
lm_family         name of a family of language models in its smallest form (`tiny_lms.py`)
"""

from collections.abc import Iterator

import pytest
import torch

from flamingo.model.flamingo import Flamingo
from tests.flamingo.model.parity_case import FIXTURES, ROOT, ParityCase
from tests.flamingo.model.tiny_lms import CONFIGS


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", params=FIXTURES)
def parity(request: pytest.FixtureRequest) -> ParityCase:
    return ParityCase(ROOT / request.param)


@pytest.fixture(scope="session")
def _parity_model(parity: ParityCase) -> Flamingo:
    return parity.build_model()


@pytest.fixture
def parity_model(_parity_model: Flamingo) -> Iterator[Flamingo]:
    yield _parity_model
    _parity_model.zero_grad(set_to_none=True)


@pytest.fixture(params=CONFIGS)
def lm_family(request: pytest.FixtureRequest) -> str:
    return request.param
