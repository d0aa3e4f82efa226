"""A column is what it holds, whatever Arrow packs it into: in every reader of parquet."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.errors import BadInputError
from mmdata.sources.arrow_columns import holds_images, is_text, plain_type, values_of
from mmdata.sources.containers import find_segments
from mmdata.sources.laion import list_segments, read_rows
from mmdata.sources.laion_columns import ColumnNames
from mmdata.sources.laion_rows import LaionRow
from mmdata.sources.parquet_images import ParquetImages
from mmdata.sources.records import read_records
from tests.corpus import picture

PICTURES = [picture(0), picture(1)]
TEXTS = ["a ü", "b"]
LIMIT = 1 << 20


class Named(pa.ExtensionType):  # type: ignore[misc]
    """An extension type as writers define them: another name for what it is stored as."""

    def __init__(self, storage: Any = None) -> None:
        super().__init__(storage or pa.binary(), "tests.named")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> "Named":
        return cls(storage)


def named(values: Any) -> Any:
    return pa.ExtensionArray.from_storage(Named(values.type), values)


def struct(kind: Any) -> Callable[[list[bytes]], Any]:
    made = pa.struct([("bytes", kind), ("path", pa.string_view())])
    return lambda images: pa.array([{"bytes": data, "path": "1.jpg"} for data in images], made)


IMAGES: dict[str, Callable[[list[bytes]], Any]] = {
    "binary": lambda images: pa.array(images, pa.binary()),
    "large": lambda images: pa.array(images, pa.large_binary()),
    "view": lambda images: pa.array(images, pa.binary_view()),
    "dictionary": lambda images: pa.array(images).dictionary_encode(),
    "extension": lambda images: named(pa.array(images)),
    "struct": struct(pa.binary()),
    "struct of views": struct(pa.binary_view()),
    "struct of dictionaries": struct(pa.dictionary(pa.int32(), pa.binary())),
    "extension of a struct": lambda images: named(struct(pa.large_binary())(images)),
}
WORDS: dict[str, Any] = {
    "string": pa.string(),
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int16(), pa.string()),
    "dictionary of large": pa.dictionary(pa.int32(), pa.large_string()),
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
class TestImages:
    def test_in_a_list_of_pairs(self, images: Callable[[list[bytes]], Any], tmp_path: Path) -> None:
        path = written(tmp_path, image=images(PICTURES), caption=pa.array(TEXTS, pa.string_view()))
        (segment,) = list_segments(path)
        rows = [
            row for row in read_rows(segment, ColumnNames(), LIMIT) if isinstance(row, LaionRow)
        ]
        assert [(row.image, row.values["caption"]) for row in rows] == [
            *zip(PICTURES, TEXTS, strict=True)
        ]

    def test_below_an_image_root(
        self, images: Callable[[list[bytes]], Any], tmp_path: Path
    ) -> None:
        names = pa.array(["1.jpg", "2.jpg"], pa.string_view())
        store = ParquetImages((written(tmp_path, image=images(PICTURES), image_name=names),), LIMIT)
        assert [store.read(name).data for name in ("1.jpg", "2.jpg")] == PICTURES

    def test_in_conversations(self, images: Callable[[list[bytes]], Any], tmp_path: Path) -> None:
        found = records(written(tmp_path, image=images(PICTURES)))
        held = [r["image"]["bytes"] if isinstance(r["image"], dict) else r["image"] for r in found]
        assert [base64.b64decode(data) for data in held] == PICTURES


@pytest.mark.parametrize("kind", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize(
    "several", [pa.list_, pa.large_list, pa.list_view, lambda kind: pa.list_(kind, 2)]
)
def test_turns_of_any_type(kind: Any, several: Callable[[Any], Any], tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a ü"}, {"from": "gpt", "value": "b"}]
    made = several(pa.struct([("from", kind), ("value", kind)]))
    path = written(tmp_path, conversations=pa.array([turns], made))
    assert records(path) == [{"conversations": turns}]


@pytest.mark.parametrize("kind", WORDS.values(), ids=WORDS)
def test_text_and_lists_of_it_are_told(kind: Any) -> None:
    assert is_text(kind)
    assert plain_type(pa.large_list(kind)) == pa.list_(pa.string())
    assert not holds_images(kind)


def test_text_that_is_not_utf8_spoils_nothing_else(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"\xff"]).view(pa.string())
    nested = pa.StructArray.from_arrays([texts, pa.array([1, 2])], ["t", "n"])
    assert values_of(nested) == [{"t": "fine", "n": 1}, {"t": "\udcff", "n": 2}]
    assert values_of(pa.array(texts, pa.string()).dictionary_encode()) == ["fine", "\udcff"]
    (segment,) = find_segments(written(tmp_path, conversations=nested))
    first, second = read_records(segment, LIMIT)
    assert json.loads(bytes(first)) == {"conversations": {"t": "fine", "n": 1}}  # type: ignore[arg-type]
    assert b'"\xff"' in second  # type: ignore[operator]


def test_times_beyond_pythons_come_as_text(tmp_path: Path) -> None:
    path = written(tmp_path, at=pa.array([2**50, 0], pa.timestamp("s")), x=pa.array([1, 2]))
    found = records(path)
    assert [row["x"] for row in found] == [1, 2]
    assert isinstance(found[0]["at"], str)


def test_a_column_of_paths_holds_no_images(tmp_path: Path) -> None:
    path = written(tmp_path, image=pa.array(["a.jpg"]), image_name=pa.array(["a.jpg"]))
    with pytest.raises(BadInputError, match=r"got image \(string\), image_name \(string\)"):
        ParquetImages((path,), LIMIT)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInputError, match="two columns have one name"):
        find_segments(str(tmp_path / "a.parquet"))


def written(folder: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return str(folder / "a.parquet")


def records(path: str) -> list[Any]:
    (segment,) = find_segments(path)
    return [json.loads(record) for record in read_records(segment, LIMIT)]  # type: ignore[arg-type]
