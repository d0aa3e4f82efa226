"""A number that readers refuse, or take for infinity, costs its record, wherever it stands."""

import json
from pathlib import Path

import pytest

from mmdata.cli.main import main
from tests.corpus import rejects_of
from tests.shard_factory import make_image

BAD = ["7" * 4301, "-" + "7" * 5000, "1e999", "-1E+400", "1" * 400 + ".0"]
GOOD = ["7" * 4300, "-1e308", "1e-999", "0.1", "12345678901234567890123456789"]


def mmc4(number: str) -> str:
    """A record with a number deep in a field that is carried along."""
    return (
        '{"text_list": ["one"], "similarity_matrix": [[0.5]], "image_info": [{"image_name": '
        f'"a.jpg", "faces": [{{"x": {number}}}]}}]}}'
    )


def custom(number: str) -> str:
    """The same for a conversation."""
    turns = [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]
    record = {"id": "a", "image": "a.jpg", "conversations": turns}
    return f'{json.dumps(record)[:-1]}, "n": [{number}]}}'


def laion(number: str) -> str:
    """The same for a pair, whose host is never asked."""
    return f'{{"URL": "http://127.0.0.1:9/a.jpg", "TEXT": "a dog", "n": {number}}}'


@pytest.mark.parametrize("kind", ["mmc4", "custom", "laion"])
def test_a_record_with_a_number_that_no_reader_holds_is_dropped(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make_image(0))
    make = {"mmc4": mmc4, "custom": custom, "laion": laion}[kind]
    roots = {"mmc4": ["--images", str(tmp_path)], "custom": ["--image-root", str(tmp_path)]}
    records = tmp_path / "docs_shard_0_v2.jsonl"
    records.write_text("".join(make(number) + "\n" for number in BAD + GOOD), encoding="utf-8")
    out = tmp_path / "out"
    options = [*roots.get(kind, []), "--output", str(out), "--workers", "0"]
    main([f"convert-{kind}", str(records), *options])
    found = [line["record"] for line in rejects_of(out) if line["reason"] == "bad-number"]
    assert found == list(range(len(BAD)))
    kept = {line["record"] for line in rejects_of(out)} - set(found)
    assert not kept or kind == "laion"  # its pictures cannot be fetched
    assert main(["validate", str(out), "--workers", "0"]) == 0
