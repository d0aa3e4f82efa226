"""Flamingo: the model, the data that it trains on, and the trainer.

`from flamingo import create_model_and_transforms` works as OpenFlamingo's does. The name loads on
first use: the options of `mmdata train` are read without torch.
"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flamingo.models.flamingo.build import create_model_and_transforms
    from flamingo.models.flamingo.model import Flamingo

__all__ = ["Flamingo", "create_model_and_transforms"]

# transformers imports torchao where it is installed, and torchao 0.18 registers its enums in a way
# that torch 2.15 warns of at each start of each rank.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name == "create_model_and_transforms":
        from flamingo.models.flamingo.build import create_model_and_transforms

        return create_model_and_transforms
    if name == "Flamingo":
        from flamingo.models.flamingo.model import Flamingo

        return Flamingo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
