"""Fixtures of the tests on several ranks.

two_ranks   (folder of the files, what rank 0 of two found): one launch for all tests
"""

from pathlib import Path
from typing import Any

import pytest

from tests.flamingo.parallel.rank_process import launch


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two_ranks")
    return folder, launch(folder)
