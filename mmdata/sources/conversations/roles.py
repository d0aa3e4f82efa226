"""Who says a turn, and how that is told in the text.

`keep` leaves the text alone and lists the roles beside it, `drop` leaves them out, a template such
as `Question: {human} Answer: {gpt}` puts words before (and behind) the turns of each role.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

_FIELD = re.compile(r"\{(\w+)\}")
#: Names of roles that mean one; the first of each row is the one that a template is matched by.
_ALIASES = {
    name: names[0]
    for names in (
        ("human", "user"),
        ("gpt", "assistant", "model", "bot", "chatgpt", "bard", "bing"),
        ("system",),
        ("tool", "function", "observation", "function_call"),
    )
    for name in names
}


def canonical(role: str) -> str:
    """The name that a role is known by; others stay as they are."""
    return _ALIASES.get(role.lower(), role.lower())


def is_answer(role: str) -> bool:
    """Whether a role is the one that answers."""
    return canonical(role) == "gpt"


def is_aside(role: str) -> bool:
    """Whether pictures are rarely shown by a role, so that its tags may be words about them."""
    return canonical(role) in ("gpt", "system")


@lru_cache(maxsize=4)
def parse_template(template: str) -> dict[str, tuple[str, str]]:
    """(words before, words behind) the turns of each role of a template.

    Raises:
        ValueError: no field, or a role twice.
    """
    parts = _FIELD.split(template)
    words, names = parts[::2], [canonical(name) for name in parts[1::2]]
    if not names:
        raise ValueError("no field like {human} in it")
    if len(set(names)) < len(names):
        raise ValueError("a role is in it twice")
    parts = [""] * (len(names) - 1) + [words[-1]]
    return {
        name: (before.lstrip() if number else before, behind)
        for number, (name, before, behind) in enumerate(zip(names, words, parts, strict=False))
    }


def render(texts: Sequence[str], roles: Sequence[str], template: str) -> list[str]:
    """Each turn in the words of its role; turns of a role that the template lacks stay as is."""
    words = parse_template(template)
    found = []
    for text, role in zip(texts, roles, strict=True):
        before, behind = words.get(canonical(role), ("", ""))
        found.append(f"{before}{text}{behind}")
    return found
