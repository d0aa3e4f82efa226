"""Names in a tar: keys, extensions, samples."""

from typing import get_args

import pytest

from mmdata.shards.structure import Damage
from mmdata.validation.findings import Findings
from mmdata.validation.rules import RULES
from mmdata.validation.tar_rules import CODE_OF_DAMAGE, check_structure, pictures_by_name
from schemas.manifest import Layout
from tests.shard_factory import make_tar


def found(*names: str, layout: Layout | None = None) -> list[tuple[str, str, str, str]]:
    findings = Findings("0.tar", 100)
    tar = make_tar([(name, b"x") for name in names], fill=False)
    check_structure(tar, findings, layout)
    return [(f.code, f.key, f.expected, f.got) for f in findings.kept]


def test_every_damage_has_a_rule() -> None:
    assert set(CODE_OF_DAMAGE) == set(Damage)
    assert set(CODE_OF_DAMAGE.values()) <= set(RULES)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_our_names(layout: Layout) -> None:
    names = ["a_0-9.json"] if layout == "interleaved" else ["a.jpg", "a.txt", "a.json"]
    assert found(*names, layout=layout) == []
    assert found("A.json", layout="interleaved") == [
        ("KEY001", "A", "characters of 0-9, a-z, _ and -", "'A'")
    ]
    assert found("a.npy", layout="interleaved") == [
        ("KEY006", "a", "json in a shard of layout interleaved", "'npy'")
    ]


@pytest.mark.parametrize("name", ["../a.json", "/etc/a.json", "d\\a.json", "d/../../a.json"])
def test_names_that_lead_out(name: str) -> None:
    assert ("KEY004", "a name inside the archive") in [(f[0], f[2]) for f in found(name)]


def test_names_that_readers_skip() -> None:
    assert [f[:2] for f in found("README", ".hidden.json", "a.json")] == [
        ("KEY005", "README"),
        ("KEY005", ".hidden.json"),
    ]


def test_extensions_that_are_not_checked_are_named() -> None:
    assert found("a.jpg", "a.txt", "a.npy") == [
        ("KEY007", "a", "an extension of images, txt or json", "'npy'")
    ]


def test_pairs() -> None:
    assert found("a.jpg", "a.txt", "b.PNG", "b.txt", "b.json", "c.json") == []
    assert found("a.jpg", "b.jpg", "a.txt", "b.txt") == [
        ("PAIR001", "a", "the members of a sample next to each other", "in 2 places"),
        ("PAIR001", "b", "the members of a sample next to each other", "in 2 places"),
    ]
    assert found("a.jpg", "a.json", "b.txt") == [
        ("PAIR003", "a", "a text (txt)", "only jpg, json"),
        ("PAIR002", "b", "an image (jpg, png, webp)", "only txt"),
    ]


def test_a_name_twice() -> None:
    assert found("a.json", "a.json") == [
        ("KEY002", "a.json", "each member name once", "a.json at bytes 512 and 1536")
    ]


def test_extensions_are_the_same_in_any_case() -> None:
    assert [row[0] for row in found("a.jpg", "a.JPG", "a.txt")] == ["KEY002"]
    assert found("a.jpg", "A.jpg", "A.txt")[0][0] == "PAIR003"


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (["a.json", "b.json"], None),
        (["a.jpg", "a.txt", "b.PNG", "b.txt", "README"], 2),
        (["a.txt", "._a.jpg", "a.jpg", "a.json"], 1),
        (["a.npy"], 0),
        ([], 0),
    ],
)
def test_pictures_are_counted_by_name(names: list[str], pictures: int | None) -> None:
    tar = make_tar([(name, b"x") for name in names], fill=False)
    contents = check_structure(tar, Findings("0.tar", 100), None)
    assert pictures_by_name(contents) == pictures
