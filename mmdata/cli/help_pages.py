"""`--help`: pages made of the dataclasses that `mmdata.cli.arguments` reads the words by.

A command's page has a box for each section of its options (`mmdata.option_checks.Options`): those
that it cannot do without first, then its own and what it inherits, in this order. An option's text
is the string below its field. Only the standard library is needed, so a page is there at once.
"""

import ast
import inspect
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from mmdata.cli.arguments import Option, options_of
from mmdata.option_checks import Options

_DESCRIPTION = (
    "Vision-language raw material to validated shards, and training from them. "
    "`mmdata COMMAND --help` tells a command's options."
)
_FOOTER = "--config FILE reads options from a YAML file; those of the command line win."
_MOST_COLUMNS = 100
#: A form that is wider has its text on the next lines.
_MOST_FORM = 28
_NO_BREAK = "\xa0"


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the words ask for help; behind `--` there are values only."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--help" in options or "-h" in options


def commands_page(kinds: Mapping[str, type]) -> str:
    """The list of all commands, by the dataclasses of their options."""
    rows = [(name, _words(kind)) for name, kind in kinds.items()]
    return _page("mmdata COMMAND [OPTIONS]", _DESCRIPTION, [("Commands", rows)])


def options_page(command: str, kind: type, given: Mapping[str, Any]) -> str:
    """The options of one command.

    Args:
        command: its name.
        kind: the dataclass of its options.
        given: values of a file, which are shown as the defaults.
    """
    values = {column.name: column.default for column in fields(kind)} | dict(given)
    options = {one.field: one for one in options_of(kind)}
    texts = texts_of(kind)
    boxes = []
    for title, names in sections_of(kind).items():
        rows = []
        for name in names:
            told = "Default:" in texts[name] and name not in given
            note = "" if told else _note(options[name], values[name])
            rows.append((_form(options[name], values[name]), f"{texts[name]} {note}"))
        boxes.append((title, rows))
    usage = ["mmdata", command]
    for one in (one for one in options.values() if one.positional):
        form = _form(one, MISSING)
        usage.append(form if values[one.field] is MISSING else f"[{form}]")
    return _page(" ".join((*usage, "[OPTIONS]")), _words(kind), boxes, _FOOTER)


def sections_of(kind: type) -> dict[str, list[str]]:
    """The fields of a command by the title of their section, in the order that they are shown.

    A field belongs to the first class that has it, even where a command changes its default.
    """
    parts = [part for part in kind.__mro__ if issubclass(part, Options)]
    homes: dict[str, type[Options]] = {}
    for part in reversed(parts):
        for column in fields(part):
            homes.setdefault(column.name, part)
    sections: dict[str, list[str]] = {}
    for part in parts:
        for name in (name for name, home in homes.items() if home is part):
            sections.setdefault(part.section, []).append(name)
    needed = {column.name for column in fields(kind) if column.default is MISSING}
    return dict(sorted(sections.items(), key=lambda section: needed.isdisjoint(section[1])))


def texts_of(kind: type) -> dict[str, str]:
    """What stands below each field of a command, in the class that says it last."""
    texts = {column.name: "" for column in fields(kind)}
    for part in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(inspect.getsource(part)).body
        for line, below in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
            match line, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _words(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _form(option: Option, value: Any) -> str:
    """An option as it is written, with what stands behind it.

    A flag that is off shows the form that turns it on, which is what its text is about. Any other
    shows both forms, since its text does not hold for the one that turns it off.
    """
    if option.positional:
        return option.name + " …" * option.is_list
    if option.hint is bool:
        return option.name if value is False else f"{option.name}, --no-{option.name[2:]}"
    parts = get_args(option.hint)
    if get_origin(option.hint) is Literal:
        return f"{option.name} {{{'|'.join(parts)}}}"
    if option.is_list:
        return f"{option.name} {_NAMES[parts[0]]}" + " …" * (not option.repeat)
    return " ".join((option.name, *(_NAMES[one] for one in parts or (option.hint,))))


_NAMES = {str: "TEXT", int: "INT", float: "FLOAT"}
_FORMATS = {int: ",", float: "g"}


def _note(option: Option, value: Any) -> str:
    """What is so without the option, where there is anything to say; not to be broken in two."""
    if value is MISSING:
        return "(required)"
    if value is None or value is False or value in ("", ()):
        return ""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if option.hint in _FORMATS:
        shown = format(value, _FORMATS[option.hint])
    return f"(default: {shown})".replace(" ", _NO_BREAK)


_Box = tuple[str, list[tuple[str, str]]]


def _page(usage: str, description: str, boxes: Sequence[_Box], footer: str = "") -> str:
    """A page as wide as the terminal, up to what the eye follows."""
    columns = max(50, min(_MOST_COLUMNS, shutil.get_terminal_size().columns))
    forms = [len(form) for _, rows in boxes for form, _ in rows]
    most = min(_MOST_FORM, columns // 3)
    left = max((form for form in forms if form <= most), default=most)
    lines = [f"usage: {usage}", "", *wrap(description, columns), ""]
    for title, rows in boxes:
        lines.append(f"╭─ {title} ".ljust(columns - 1, "─") + "╮")
        for form, text in rows:
            lines += [
                f"│ {row.ljust(columns - 4)} │" for row in _rows(form, text, left, columns - 4)
            ]
        lines.append("╰" + "─" * (columns - 2) + "╯")
    lines += wrap(footer, columns)
    return _in_this_encoding("\n".join(lines).replace(_NO_BREAK, " ") + "\n")


def _rows(form: str, text: str, left: int, width: int) -> Iterator[str]:
    """An option's lines: its form, and its text in a column beside or below."""
    first, *rest = wrap(text, width - left - 2, break_on_hyphens=False)
    if len(form) <= left:
        yield form.ljust(left + 2) + first
    else:
        yield form
        yield " " * (left + 2) + first
    for line in rest:
        yield " " * (left + 2) + line


def _in_this_encoding(page: str) -> str:
    """The page with plain lines around its boxes where the output has no others."""
    try:
        page.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return page.translate(str.maketrans("╭╮╰╯─│…", "++++-|."))
    return page
