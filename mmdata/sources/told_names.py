"""The names that a record tells of itself, and where they stand in its text, however spelt.

A name is the value of a field of ids (`id`, `patient_id`, `subjectUID`, `mrn`, wherever in the
record), of a field that the user named, or a part of an image's name. Only what can hardly be a
word is looked for: four characters or more, and one of them none of words; an id such as `3` or
`left` would be found all over a text that does not mean it.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmdata.sources.fields import text_of

_SHORTEST_NAME = 4
_NOT_OF_WORDS = re.compile(r"[\d_./\\-]")
#: From so many letters and digits on, an id is found with spaces in it, and noticed inside a word.
_LONG_FROM = 6
#: Where an id was, while what is left of the others is looked for: nothing that could be of one.
_HIDDEN = "\0" * 4
_RUNS = re.compile(r"[^\W\d_]+|\d+")
_NOT_SPELT = re.compile(r"[\W_]+")
_WORDS_OF_NAME = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ID_WORDS = frozenset(
    (
        *("id", "ids", "uid", "uids", "uuid", "guid", "mrn", "accession", "identifier"),
        *("patient", "patients", "subject", "subjects", "participant", "participants"),
    )
)
_GLUED_ID = re.compile(r"(?:patient|subject|participant|person|case|study|series|scan|record)u?id")
#: Between the parts of ids and names; word processors make other dashes of a hyphen.
_JOINTS = r"_./\\:\u2010-\u2015\u2212-"
#: What may stand between the parts of an id: none of words' own; with spaces; of a person's name.
_JOINED, _SPACED, _OF_PERSONS = (
    rf"[{_JOINTS}]{{0,3}}",
    rf"[\s{_JOINTS}]{{0,3}}",
    rf"[\s,^{_JOINTS}]{{1,3}}",
)

_TITLE = r"(?:Dr|Mr|Mrs|Ms|Miss|Prof|Professor|Doctor|Herr|Frau|Madame|Mme|Monsieur)\b\.?\s+"
_CAPITALISED = r"[^\W\d_a-zß-ÿ][^\W\d_A-ZÀ-Þ]+"
_PERSON = re.compile(
    rf"\b{_TITLE}[^\W\d_a-zß-ÿ]|\b({_CAPITALISED}),?[ ]{_CAPITALISED}\b|\b[^\W\d_]+\^[^\W\d_]+"
)
_SENTENCE_STARTS = frozenset(
    (
        *("A", "An", "And", "Are", "As", "At", "But", "By", "Can", "Did"),
        *("Do", "Does", "For", "From", "Has", "Have", "He", "Her", "His", "How"),
        *("I", "If", "In", "Is", "It", "Its", "Let", "My", "No", "Not"),
        *("Of", "On", "Or", "Our", "She", "So", "That", "The", "Their", "Then"),
        *("There", "These", "They", "This", "Those", "To", "Was", "We", "What", "When"),
        *("Where", "Which", "Who", "Why", "Will", "With", "Yes", "You", "Your"),
    )
)


@dataclass(frozen=True, slots=True)
class Told:
    """A value that tells whose a record is.

    Attributes:
        text: of the value.
        named: the user named its field: what is several words may be a person's name.
    """

    text: str
    named: bool = False

    @property
    def is_name(self) -> bool:
        """Whether it can hardly be a word."""
        if len(self.text) < _SHORTEST_NAME:
            return False
        if self.named:
            return not self.text.isalpha()
        return _NOT_OF_WORDS.search(self.text) is not None

    @property
    def is_long(self) -> bool:
        """Whether it is hardly met by chance, even inside a longer word."""
        return sum(map(len, _RUNS.findall(self.text))) >= _LONG_FROM

    def spellings(self) -> str:
        """A pattern of the ways in which it may be written."""
        exact = re.escape(self.text)
        runs = _RUNS.findall(self.text)
        if any(run.isdigit() for run in runs):
            between = _SPACED if self.is_long else _JOINED
        elif self.named and len(runs) > 1:
            between = _OF_PERSONS
        else:
            return exact
        return f"{exact}|{between.join(map(re.escape, runs))}"


@dataclass(frozen=True, slots=True)
class PartOfName(Told):
    """A part of an image's name: `slice_10` is not meant by the words `slice 10`."""

    @property
    def is_long(self) -> bool:
        """Never: `slice_10` is not meant by `slice_100` either."""
        return False

    def spellings(self) -> str:
        """A pattern of the ways in which it may be written."""
        runs = _RUNS.findall(self.text)
        exact = re.escape(self.text)
        if not any(run.isdigit() for run in runs):
            return exact
        return f"{exact}|{_JOINED.join(map(re.escape, runs))}"


def is_id_field(name: str) -> bool:
    """Whether a field's name says that it holds ids."""
    words = [word.lower() for word in _WORDS_OF_NAME.findall(name)]
    return bool(words) and (words[-1] in _ID_WORDS or _GLUED_ID.fullmatch(words[-1]) is not None)


def ids_of(
    value: Any, named: Collection[str], kept: Collection[str], path: str = ""
) -> Iterator[Told]:
    """The ids in a record, wherever they are.

    Args:
        value: of the record, or of what is in it.
        named: fields that the user named.
        kept: fields that may be told.
        path: of the value.
    """
    if isinstance(value, list):
        for item in value:
            yield from ids_of(item, named, kept, path)
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        below = f"{path}.{name}" if path else name
        if below in kept:
            continue
        if below in named or is_id_field(name):
            yield from (Told(text, below in named) for text in _leaves(inner))
        else:
            yield from ids_of(inner, named, kept, below)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif not isinstance(value, bool) and (text := text_of(value)) is not None:
        yield text.strip()


def parts_of_name(name: str) -> Iterator[PartOfName]:
    """An image's name, its folders, and its last part with and without its ending."""
    yield PartOfName(name)
    for part in name.split("/"):
        yield PartOfName(part)
        yield PartOfName(os.path.splitext(part)[0])


class NameFinder:
    """Finds the names of one record in text, as whole words and in any case.

    Args:
        told: what tells whose the record is; of what is spelt alike the first counts.
        hidden: what to put in place of a name.
    """

    def __init__(self, told: Iterable[Told], hidden: Callable[[str], str]) -> None:
        names: dict[str, Told] = {}
        self._words: set[str] = set()
        for one in told:
            if one.is_name:
                names.setdefault(_spelt(one.text), one)
            elif one.text and not isinstance(one, PartOfName):
                self._words.add(one.text)
        longest_first = sorted(names.values(), key=lambda one: len(one.text), reverse=True)
        self._names = _whole_words(one.spellings() for one in longest_first)
        self._grown = _any_of(one.spellings() for one in longest_first if one.is_long)
        self._hidden = {spelt: hidden(one.text) for spelt, one in names.items()}
        self._hide = hidden

    def hide(self, text: str) -> str:
        """A text with something else in place of the names."""
        if self._names is None:
            return text
        return self._names.sub(self._in_place_of, text)

    def _in_place_of(self, match: re.Match[str]) -> str:
        """What stands for a name; one that only patterns take for the same stands for itself."""
        return self._hidden.get(_spelt(match[0])) or self._hide(match[0])

    def leaves_in(self, texts: Iterable[str]) -> bool:
        """Whether an id stands in a text that is not hidden: it may be a word, or is inside one."""
        words = _whole_words(map(re.escape, sorted(self._words)))
        return any((words and words.search(text)) or self._is_in_a_word(text) for text in texts)

    def _is_in_a_word(self, text: str) -> bool:
        """Whether letters or digits grow on an id (`pt001S1003`), so that it is no whole word."""
        if self._names is None or self._grown is None:
            return False
        return self._grown.search(self._names.sub(_HIDDEN, text)) is not None


def _spelt(text: str) -> str:
    """What all spellings of a name have in common."""
    return _NOT_SPELT.sub("", text).casefold() or text


def _whole_words(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern of words by themselves; an underscore parts words, as it does in file names."""
    return _any_of(patterns, r"(?<![^\W_])", r"(?![^\W_])")


def _any_of(patterns: Iterable[str], before: str = "", behind: str = "") -> re.Pattern[str] | None:
    every = "|".join(patterns)
    return re.compile(f"{before}(?:{every}){behind}", re.IGNORECASE) if every else None


def may_name_a_person(text: str) -> bool:
    """A plain guess: a title before a capital, or two capitalised words in a row, or `Doe^John`."""
    return any(match[1] not in _SENTENCE_STARTS for match in _PERSON.finditer(text))
