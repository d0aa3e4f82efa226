"""Readers of the test images: `photo` and `hostile`, bytes by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[2] / "assets" / "images"


@pytest.fixture
def photo() -> Callable[[str], bytes]:
    """Bytes of a real image under tests/assets/images/photos."""
    return lambda name: (ASSETS / "photos" / name).read_bytes()


@pytest.fixture
def hostile() -> Callable[[str], bytes]:
    """Bytes of a broken or odd file under tests/assets/images/hostile."""
    return lambda name: (ASSETS / "hostile" / name).read_bytes()
