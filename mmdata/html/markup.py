"""HTML put together from values, so that nothing from data can become markup.

Text is escaped where it is put in, not where somebody remembers to: `element` takes plain strings
as text, and only what another `element` made as markup. Attributes that would run or style
something are refused, as the page's Content-Security-Policy refuses them too.
"""

import re
from collections.abc import Iterable
from html import escape

#: Elements without content.
_VOID = frozenset(("br", "hr", "img", "input", "link", "meta"))
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_REFUSED = re.compile(r"on.*|style|srcdoc")
#: What acts on a reader instead of being read: control characters, marks that turn the direction
#: of text around, line separators, halves of surrogate pairs. Joiners stay: emoji and Persian
#: are written with them.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


class Markup(str):
    """Text that is HTML already; only this module makes it."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def text(value: object) -> Markup:
    """A value as text of a page."""
    return Markup(escape(readable(str(value)), quote=True))


def readable(value: str) -> str:
    """A string with what acts on a reader as visible escapes."""
    return _ACTING.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), value)


def shortened(value: str, limit: int) -> str:
    """At most `limit` characters, the last an ellipsis where something was cut."""
    return value if len(value) <= limit else f"{value[: limit - 1]}…"


def element(
    name: str, /, *children: Child, **attributes: str | int | float | bool | None
) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: markup as it is, everything else as text; None is left out.
        attributes: `_` stands for `-`, a `_` at the end is dropped (`class_`, `for_`); None and
            False leave the attribute out, True writes it without a value.

    Raises:
        ValueError: a name that is none, or an attribute that would run or style something.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an element")
    opening = [name]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if _REFUSED.fullmatch(attribute.lower()) or not _NAME.fullmatch(attribute):
            raise ValueError(f"{attribute!r}: an attribute that is not allowed here")
        if value is True:
            opening.append(attribute)
        elif value is not None and value is not False:
            opening.append(f'{attribute}="{text(value)}"')
    start = f"<{' '.join(opening)}>"
    if name in _VOID:
        return Markup(start)
    return Markup(f"{start}{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Markup:
    """Children one behind the other."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(text(child))
        elif child is not None:
            parts.append(joined(child))
    return Markup("".join(parts))


def raw(name: str, content: str) -> Markup:
    """A `script` or `style` element of our own; never of anything from data.

    Raises:
        ValueError: the content would end the element.
    """
    if f"</{name}" in content.lower() or "<!--" in content:
        raise ValueError(f"the content of <{name}> ends it")
    return Markup(f"<{name}>{content}</{name}>")
