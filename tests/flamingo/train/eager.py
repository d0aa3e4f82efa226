"""Compilers are not what the tests of levers are about: traced blocks run uncompiled here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torchao.optim import AdamW8bit

from flamingo.train import compile as compiling


@contextmanager
def without_compiler() -> Iterator[None]:
    """Blocks are traced, as for a compiler, and run as traced; torchao's step is not compiled."""
    backend, step = compiling.BACKEND, AdamW8bit.step

    def eager_step(self: AdamW8bit, closure: Any = None) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return step(self, closure)

    compiling.BACKEND, AdamW8bit.step = "eager", eager_step
    try:
        yield
    finally:
        compiling.BACKEND, AdamW8bit.step = backend, step
