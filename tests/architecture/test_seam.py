"""Only a family's own folder and the table of families know a family's model, parts and options."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from flamingo.models.flamingo.options import FlamingoOptions

ROOT = Path(__file__).resolve().parents[2]
OWN = ("flamingo/models/flamingo/", "flamingo/models/registry.py", "flamingo/__init__.py")
PARTS = frozenset(
    (
        *("vision_encoder", "lang_encoder", "perceiver", "decoder_blocks", "media_tokens"),
        *("cross_attention_blocks", "vis_dim", "media_token_id", "eoc_token_id"),
    )
)
#: `mmdata generate`, `export` and `features` have options of these names, which are not a run's.
OTHER_OPTIONS = ("flamingo/inference/", "flamingo/modules/adapter_options.py", "pipelines/")
OPTIONS = frozenset(column.name for column in fields(FlamingoOptions))


def known_of_flamingo(source: str, *, of_run: bool) -> Iterator[str]:
    """What a source names of the family, each as `line: name`.

    Args:
        source: text of a module.
        of_run: whether what is called options in it is a run's.
    """
    for node in ast.walk(ast.parse(source)):
        name = {
            ast.Name: lambda node: node.id,
            ast.ClassDef: lambda node: node.name,
            ast.alias: lambda node: node.name.rpartition(".")[2],
            ast.Attribute: lambda node: node.attr,
        }.get(type(node), lambda _: "")(node)
        is_options = isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("options")
        if (
            name.startswith("Flamingo")
            or (isinstance(node, ast.Attribute) and name in PARTS)
            or (of_run and is_options and name in OPTIONS)
        ):
            yield f"{getattr(node, 'lineno', 0)}: {name}"


def test_nothing_else_names_flamingo_its_parts_or_its_options() -> None:
    found = {}
    for package in ("mmdata", "pipelines", "flamingo", "schemas"):
        for path in sorted((ROOT / package).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if not place.startswith(OWN):
                of_run = not place.startswith(OTHER_OPTIONS)
                names = list(known_of_flamingo(path.read_text(encoding="utf-8"), of_run=of_run))
                found.update({place: names} if names else {})
    assert found == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from flamingo import Flamingo", "Flamingo"),
        ("def width(model: Flamingo) -> int: ...", "Flamingo"),
        ("width = trainer.model.vis_dim", "vis_dim"),
        ("if options.cross_attn_every_n_layers > 1: ...", "cross_attn_every_n_layers"),
        ("print(trainer.options.lm_path)", "lm_path"),
    ],
)
def test_each_way_of_knowing_it_is_seen(source: str, name: str) -> None:
    assert [one.partition(": ")[2] for one in known_of_flamingo(source, of_run=True)] == [name]


def test_options_of_other_commands_may_have_the_names_of_a_familys() -> None:
    assert list(known_of_flamingo("place = options.lm_path", of_run=False)) == []
