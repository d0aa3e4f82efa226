"""One hostile web for all tests of the fetcher."""

from collections.abc import Iterator

import pytest

from tests.web import Web, serve


@pytest.fixture(scope="package")
def web() -> Iterator[Web]:
    with serve() as running:
        yield running
