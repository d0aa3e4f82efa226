"""Columns built from buffers are the columns that Arrow itself makes of the same values."""

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shards import columns
from mmdata.shards.columns import arrow_array

INT32, INT64 = 2**31, 2**63
PLAIN: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "string": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    "bool": (pa.bool_(), st.booleans()),
    "int32": (pa.int32(), st.integers(-INT32, INT32 - 1)),
    "int64": (pa.int64(), st.integers(-INT64, INT64 - 1)),
    "double": (pa.float64(), st.none() | st.floats(allow_nan=False)),
}


@pytest.mark.parametrize("kind", PLAIN)
@given(data=st.data())
def test_a_column_is_what_arrow_makes_of_the_values(kind: str, data: st.DataObject) -> None:
    arrow_type, values = PLAIN[kind]
    column = data.draw(st.lists(values, max_size=20))
    made = arrow_array(kind, column)
    made.validate(full=True)
    assert made.equals(pa.array(column, arrow_type))


@pytest.mark.parametrize("kind", PLAIN)
@given(data=st.data())
def test_a_column_of_lists_is_what_arrow_makes_of_the_values(
    kind: str, data: st.DataObject
) -> None:
    arrow_type, values = PLAIN[kind]
    column = data.draw(st.lists(st.lists(values, max_size=9), max_size=9))
    made = arrow_array(f"list<{kind}>", column)
    made.validate(full=True)
    assert made.equals(pa.array(column, pa.list_(arrow_type)))


def test_a_number_that_does_not_fit_its_column_is_an_error_and_does_not_wrap() -> None:
    with pytest.raises(OverflowError):
        arrow_array("int32", [2**31])


def test_a_column_beyond_what_its_offsets_can_say_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Limit:
        max = 5

    monkeypatch.setattr(columns.np, "iinfo", lambda kind: Limit)
    assert arrow_array("string", ["ab", "cde"]).to_pylist() == ["ab", "cde"]
    with pytest.raises(ValueError, match="a column of 6 bytes or items: a shard holds"):
        arrow_array("string", ["ab", "cdef"])


def test_a_table_is_written_without_importing_pandas() -> None:
    """`datasets` and others bring it along; workers can do without."""
    pytest.importorskip("pandas")
    code = (
        "import sys\n"
        "from mmdata.shards.writer import samples_table\n"
        "samples_table([])\n"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
