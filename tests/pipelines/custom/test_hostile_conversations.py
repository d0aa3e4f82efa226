"""Every broken conversation has its one outcome: what is kept, dropped or refused, and why."""

from pathlib import Path
from typing import NamedTuple

import pytest

from mmdata.errors import BadInputError
from pipelines.custom.run import convert_custom
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import documents_of, rejects_of, run_cli
from tests.custom_factory import Conversations

HOSTILE = Path(__file__).parents[2] / "assets" / "hostile_conversations"


class Outcome(NamedTuple):
    """Records, documents and images that come out, and the reasons for the rest."""

    records: int
    documents: int
    images: int
    documents_dropped: tuple[str, ...] = ()
    images_dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def broken(reason: str) -> Outcome:
    """Two good records around one that is dropped."""
    return Outcome(3, 2, 2, (reason,))


def lost(reason: str) -> Outcome:
    """Two good records around one whose only image is of no use."""
    return Outcome(3, 2, 2, ("no-images-left",), (reason,))


ALL_GOOD = Outcome(3, 3, 3)
FOUR_GOOD = Outcome(4, 4, 4)

OUTCOMES = {
    "bom": FOUR_GOOD,
    "conversations_empty": broken("no-text"),
    "conversations_missing": broken("unknown-format"),
    "element_not_object": Outcome(5, 2, 2, ("not-an-object",) * 3),
    "empty_list": Outcome(0, 0, 0),
    "fewer_tags_than_images": Outcome(3, 3, 5, notes=("fewer-tags-than-images",)),
    "id_duplicate": ALL_GOOD,
    "id_integer": ALL_GOOD,
    "id_missing": ALL_GOOD,
    "id_slashes": ALL_GOOD,
    "image_absolute": lost("unsafe-path"),
    "image_empty_list": broken("no-images-listed"),
    "image_is_directory": lost("missing"),
    "image_nested_list": broken("bad-schema"),
    "image_null": broken("no-images-listed"),
    "image_number": broken("bad-schema"),
    "image_traversal": lost("unsafe-path"),
    "image_url": lost("missing"),
    "jsonl_instead": FOUR_GOOD,
    "missing_image": lost("missing"),
    "more_tags_than_images": Outcome(3, 3, 3, notes=("more-tags-than-images",)),
    "nan": Outcome(5, 4, 4, ("non-finite",)),
    "no_image_tag": Outcome(3, 3, 3, notes=("no-tags",)),
    "openai_roles": ALL_GOOD,
    "tag_in_answer": ALL_GOOD,
    "tag_without_image": broken("no-images-listed"),
    "unknown_role": ALL_GOOD,
    "value_not_string": broken("bad-schema"),
    "value_null": broken("bad-schema"),
}

REFUSED = {
    "empty_file": "the file is empty; fetch it again",
    "top_level_object": "is one JSON object over several lines; expected an array of records",
    "top_level_string": "expected an array of records, one record a line, or parquet, got '\"hello",
    "trailing_comma": "a record is missing at byte 2341 of the JSON array",
    "truncated": "the JSON array ends at byte 2270 inside a string, in record 3; it is cut off",
    "utf16": "is UTF-16; make it UTF-8 (iconv -f UTF-16 -t UTF-8 does)",
}


def hostile(*names: str) -> Conversations:
    return Conversations(tuple(str(HOSTILE / f"{name}.json") for name in names), str(HOSTILE))


def test_every_file_of_the_assets_has_its_outcome_here() -> None:
    assert {path.stem for path in HOSTILE.glob("*.json")} == OUTCOMES.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_a_broken_record_costs_itself_only(name: str, tmp_path: Path) -> None:
    expected = OUTCOMES[name]
    output = tmp_path / "out"
    result = convert_custom(hostile(name).options(output), quiet=True)
    tally = result.tally
    assert (tally.records, tally.documents, tally.images) == expected[:3]
    for found, reasons in (
        (tally.documents_dropped, expected.documents_dropped),
        (tally.images_dropped, expected.images_dropped),
        (tally.notes, expected.notes),
    ):
        assert sorted(found.items()) == sorted((r, reasons.count(r)) for r in set(reasons))
    assert (result.complete, result.exit_code) == (True, 0)
    for found_document in documents_of(output).values():
        tagged = [text for text in found_document["text_list"] if "<image>" in text]
        # Words, since the question has the tag that the image is for.
        assert not tagged or (name, tagged) == ("tag_in_answer", ["See <image>"])
        assert found_document["alignment"] == "given"
    assert validate(Validate(shards=(str(output),), workers=0)).findings == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_broken_file_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        convert_custom(hostile(name).options(tmp_path / "out"), quiet=True)
    assert caught.value.exit_code == 2
    assert f"{name}.json: {REFUSED[name]}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_of_them_at_once_through_the_command(tmp_path: Path) -> None:
    """Broken files are named together, left out on demand, and the rest is one clean dataset."""
    source, output = hostile(*sorted(OUTCOMES), *sorted(REFUSED)), tmp_path / "out"
    done = run_cli(source.command(output, "--workers", "0"))
    assert done.returncode == 2
    assert all(f"{name}.json: {problem}" in done.stderr for name, problem in REFUSED.items())
    done = run_cli(source.command(output, "--workers", "0", "--skip-bad-inputs"))
    assert done.returncode == 0, done.stderr
    assert all(f"left out: {name}.json" in done.stdout for name in REFUSED)
    keys = list(documents_of(output))
    assert len(keys) == len(set(keys)) == sum(outcome.documents for outcome in OUTCOMES.values())
    assert all(key.isdigit() for key in keys)
    assert {reject["reason"] for reject in rejects_of(output)} > {"bad-schema", "unsafe-path"}
    done = run_cli([*source.command("x")[:3], "validate", str(output), "--workers", "0"])
    assert done.returncode == 0, done.stdout
    assert all(b"root:" not in path.read_bytes() for path in output.glob("*.tar"))
