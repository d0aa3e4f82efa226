"""Every row of a CSV or TSV comes out as it is written, or is named; none goes into another."""

import csv
import io
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmdata.errors import BadInputError
from mmdata.sources import delimited
from mmdata.sources.base import RecordDropped
from mmdata.sources.delimited import Cells, read_delimited, swallowed_line
from mmdata.sources.records import Overlong

LIMIT = 10_000


def read(
    data: bytes, *, quoted: bool = True, delimiter: bytes = b",", limit: int = LIMIT
) -> list[Any]:
    """Rows as lists of text, what is none as it comes."""
    found = read_delimited(io.BytesIO(data), "f.csv", delimiter, limit, quoted=quoted)
    return [
        [field.decode() for field in row.fields] if isinstance(row, Cells) else row for row in found
    ]


def by_python(text: str, delimiter: str = ",") -> list[list[str]]:
    """What Python's csv makes of it; blank lines are left out."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [row for row in rows if row]


FIELDS = st.text(st.sampled_from('ab ,"\n\té\U0001f600'), max_size=6)
TABLES = st.lists(st.lists(FIELDS, min_size=2, max_size=3), min_size=1, max_size=6)


class TestQuotedFields:
    @given(
        TABLES,
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        st.sampled_from(["\n", "\r\n"]),
        st.sampled_from(["", "\ufeff"]),
        st.sampled_from([",", "\t"]),
        st.integers(4, 12),
    )
    def test_what_python_writes_comes_back_whatever_the_chunks(
        self, table: list[list[str]], quoting: Any, end: str, mark: str, delimiter: str, size: int
    ) -> None:
        sink = io.StringIO(newline="")
        csv.writer(sink, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(table)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited, "_CHUNK_BYTES", size)
            found = read((mark + sink.getvalue()).encode(), delimiter=delimiter.encode())
        assert found == table

    @given(st.text(st.sampled_from('a,"\n'), max_size=14), st.booleans())
    @example('a,"b\nc"d,e\n', False)
    @example('"a"b,c\n"d"\n', False)
    def test_any_text_reads_as_by_python_or_is_refused_or_dropped(
        self, text: str, carriage: bool
    ) -> None:
        text = text.replace("\n", "\r\n") if carriage else text
        try:
            expected: list[list[str]] | None = by_python(text)
        except csv.Error:
            expected = None
        try:
            found = read(text.encode())
        except BadInputError:
            assert expected is None
            return
        if expected is None:
            assert any(isinstance(row, RecordDropped) for row in found)
        else:
            assert found == expected

    @pytest.mark.parametrize(
        ("text", "line", "what"),
        [
            ('u,t\nx,"open\ny,b\n', 2, "still open at the end"),
            ('u,t\na,b\n\nx,"one\ntwo","three\nfour\n', 5, "still open at the end"),
            ('u,t\n"', 2, "still open at the end"),
            ('u,t\nx,"5 inch\ny,"6" inch"\nz,c\n', 2, "goes on over lines and is followed by text"),
            ('u,t\nx,"' + "a line\n" * 20, 2, "still open 100 bytes later"),
            ('u,t\nx,"' + "a" * 200 + '\ny,z"\n', 2, "still open 100 bytes later"),
        ],
    )
    def test_a_field_that_swallows_others_is_named_by_its_line(
        self, text: str, line: int, what: str
    ) -> None:
        with pytest.raises(BadInputError, match=rf"^f\.csv: line {line}: .*{what}.*--quoting none"):
            read(text.encode(), limit=100)

    def test_text_behind_a_quote_drops_its_row_and_no_other(self) -> None:
        first, dropped, last = read(b'a,b\n"Hero" of the day,b\nc,"d"\n')
        assert (first, last) == (["a", "b"], ["c", "d"])
        assert dropped.reason == "bad-schema"
        assert dropped.detail.startswith("line 2: text behind a closing quote")

    def test_a_row_over_the_limit_is_passed_over_in_bounded_memory(self) -> None:
        assert read(b"a,b\n" + b"c" * 200 + b',"d"\ne,f\n', limit=100) == [
            ["a", "b"], Overlong(204), ["e", "f"]
        ]  # fmt: skip
        data = b"a,b\n" + b"c" * 30_000_000 + b"\ne,f\n"
        tracemalloc.start()
        assert read(data, limit=1000) == [["a", "b"], Overlong(30_000_000), ["e", "f"]]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
        tracemalloc.stop()


class TestQuotesAsText:
    @given(
        st.lists(st.text(st.sampled_from('ab"\tü'), min_size=1, max_size=8), max_size=8),
        st.sampled_from(["\n", "\r\n", "\r"]),
    )
    def test_a_line_is_a_row_as_it_is_written(self, lines: list[str], end: str) -> None:
        found = read(end.join([*lines, ""]).encode(), quoted=False, delimiter=b"\t")
        assert found == [line.split("\t") for line in lines]

    def test_lines_may_end_at_cr(self) -> None:
        for quoted in (True, False):
            assert read(b"a,b\rc,d\r", quoted=quoted) == [["a", "b"], ["c", "d"]]
        assert read(b'a,b\rc,"d\ne"\r') == [["a", "b"], ["c", "d\ne"]]


class TestSwallowedRows:
    @pytest.mark.parametrize(
        ("fields", "url", "line"),
        [
            (["5 inch,http://x/1\nplain,http://x/2\nnail", "http://x/3"], 1, 7),
            (["5 inch,http://x/1\nnail", "http://x/3"], 1, 7),
            (["http://x/1", "5 inch\nhttp://x/2,nail"], 0, 8),
            (["http://x/1", "5 inch\nhttp://x/2,nail\nhttp://x/3,c"], 0, 8),
            (["http://x/1", "a caption\nof two lines, see http://x/2"], 0, 0),
            (["a caption\nof two lines", "http://x/1"], 1, 0),
            (["http://x/1", "see\nhttp://x/2, which is it"], 0, 0),
            (["http://x/1", "see\nhttp://x/2"], 0, 0),
            (["a", "b"], 1, 0),
        ],
    )
    def test_a_row_is_told_by_its_fields_and_its_address(
        self, fields: list[str], url: int, line: int
    ) -> None:
        cells = Cells(7, [field.encode() for field in fields])
        assert swallowed_line(cells, b",", url) == line


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_unicode_is_named_with_the_remedy(encoding: str) -> None:
    with pytest.raises(BadInputError, match=r"f\.csv: is UTF-(16|32).*iconv -f UTF-.* -t UTF-8"):
        read("url,text\na,b\n".encode(encoding))
