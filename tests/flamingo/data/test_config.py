"""What a stream cannot be told; and that telling it loads nothing heavy."""

import subprocess
import sys
from typing import Any

import pytest

from flamingo.data.config import StreamConfig
from mmdata.errors import UserError


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"shuffle_shards": 0}, {"decode_threads": -1}, {"max_tokens": 4}]
)
def test_what_cannot_be(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UserError, match=f"stream laion: {name}: expected at least"):
        StreamConfig(name="laion", shards=("somewhere",), **wrong)


def test_loads_the_standard_library_only() -> None:
    code = (
        "import sys; import flamingo.data.config; "
        "print([name for name in ('torch', 'numpy', 'transformers', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
