"""Flamingo: the model, the data that it trains on, and the trainer.

`from flamingo import create_model_and_transforms` works as OpenFlamingo's does. The name loads on
first use: the options of `mmdata train` are read without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flamingo.model.factory import create_model_and_transforms
    from flamingo.model.flamingo import Flamingo

__all__ = ["Flamingo", "create_model_and_transforms"]


def __getattr__(name: str) -> Any:
    if name == "create_model_and_transforms":
        from flamingo.model.factory import create_model_and_transforms

        return create_model_and_transforms
    if name == "Flamingo":
        from flamingo.model.flamingo import Flamingo

        return Flamingo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
