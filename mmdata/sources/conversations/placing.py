"""Which turn an image belongs to: the k-th placeholder is the k-th image.

An image goes with the text that follows it in its turn; where it ends the turn, with the next turn
that has text; where there is none, with its own. What does not add up is settled by a policy, and
counted; the default, `first-turn`, keeps all that can be kept:

- no placeholder at all (`no-tags`): all images go to the first turn that is not the system's;
- fewer than images (`fewer-tags-than-images`): the others go to the turn of the last one placed;
- more than images (`more-tags-than-images`): those in answers give way first, then the last ones;
  all are taken out of the text;
- one in an answer (`tag-in-answer`): it is a place like any other.

Where the questions' placeholders account for all images, what looks like one in an answer or in the
system's turn is words, and stays. A part of a turn that is an image and has none left in the list
is an image that is dropped.

`drop` drops the record instead, `error` ends its unit. Placeholders that all carry numbers of
images (`<image_2>`) name them; a number that comes again is one too many.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mmdata.sources.base import RecordDropped, RecordError, SourceImage
from mmdata.sources.conversations.placeholders import Tag, join_pieces, split_tags
from mmdata.sources.conversations.roles import canonical, is_answer, is_aside
from schemas.reasons import DocumentDrop, DocumentNote

OnTagMismatch = Literal["error", "first-turn", "drop"]
Piece = str | Tag | SourceImage


@dataclass(frozen=True, slots=True)
class Utterance:
    """A turn as it is parsed: texts, placeholders, and images that stand where they belong."""

    role: str
    pieces: list[Piece]


@dataclass(frozen=True, slots=True)
class Placed:
    """Turns without placeholders, and the images of them.

    Attributes:
        texts: of the turns.
        images: those of the record's list first, then those that stood in turns, in their order.
        matched: the turn of each image.
        notes: what did not add up.
    """

    texts: list[str]
    images: list[SourceImage]
    matched: list[int]
    notes: list[tuple[str, str]]


def place(
    turns: Sequence[Utterance], images: Sequence[SourceImage], on_mismatch: OnTagMismatch
) -> Placed:
    """Match images to turns.

    Args:
        turns: in order, at least one with text.
        images: those that placeholders stand for.
        on_mismatch: what placeholders and images that do not fit do to the record.

    Raises:
        RecordDropped: they do not fit, and the policy is `drop`; or there is no text.
        RecordError: they do not fit, and the policy is `error`.
    """
    turns = _with_words(turns, len(images))
    texts = [_text(turn) for turn in turns]
    if not any(text.strip() for text in texts):
        raise RecordDropped(DocumentDrop.NO_TEXT, "expected a turn with text, got none")
    tags: list[_Stand] = []
    standing: list[tuple[SourceImage, int] | int] = []
    for number, turn in enumerate(turns):
        for position, piece in enumerate(turn.pieces):
            if isinstance(piece, str):
                continue
            home = _home(turns, texts, number, position)
            if isinstance(piece, Tag):
                standing += [len(tags)] if piece.problem else []
                tags.append(_Stand(piece, home, turn.role))
            else:
                standing.append((piece, home))
    listed = _assign(tags, len(images))
    notes = _mismatches(tags, listed, len(images))
    if notes and on_mismatch != "first-turn":
        _refuse(notes, on_mismatch)
    rest = tags[[*listed.values()][-1]].home if listed else _first_turn(turns, texts)
    matched = [tags[listed[k]].home if k in listed else rest for k in range(len(images))]
    found = [*images]
    for image, home in _left(standing, tags, set(listed.values())):
        found.append(image)
        matched.append(home)
    return Placed(texts, found, matched, notes)


class _Stand(NamedTuple):
    """A placeholder at its place: the turn that its image would go with, and who says it."""

    tag: Tag
    home: int
    role: str

    @property
    def may_be_words(self) -> bool:
        """Whether it is text of somebody who does not ask about pictures."""
        return is_aside(self.role) and not self.tag.problem


def _left(
    standing: list[tuple[SourceImage, int] | int], tags: list[_Stand], used: set[int]
) -> Iterator[tuple[SourceImage, int]]:
    """Images that stand in turns, and the parts that none of the list was left for."""
    for one in standing:
        if not isinstance(one, int):
            yield one
        elif one not in used:
            yield SourceImage("", {}, tags[one].tag.problem), tags[one].home


def as_words(pieces: Sequence[Piece], is_text: Callable[[Tag], bool]) -> list[Piece]:
    """Pieces in which some placeholders are the words again that they are written as."""
    found: list[Piece] = []
    glue = False
    for piece in pieces:
        again = isinstance(piece, Tag) and bool(piece.words) and is_text(piece)
        text = piece.words if again and isinstance(piece, Tag) else piece
        last = found[-1] if found else None
        if (glue or again) and isinstance(last, str) and isinstance(text, str):
            found[-1] = last + text
        else:
            found.append(text)
        glue = again
    return found


def put_in(pieces: list[Piece], images: Sequence[SourceImage]) -> list[Piece]:
    """A turn with its own images: in the places of its placeholders, the others before it."""
    waiting = list(images)
    found: list[Piece] = []
    for piece in pieces:
        free = isinstance(piece, Tag) and not piece.pointed
        found.append(waiting.pop(0) if free and waiting else piece)
    return [*waiting, *found]


def _with_words(turns: Sequence[Utterance], num_images: int) -> Sequence[Utterance]:
    """The turns; where the questions' placeholders are all images, those of others are words."""
    tags = [_Stand(p, 0, turn.role) for turn in turns for p in turn.pieces if isinstance(p, Tag)]
    asked = [tag for tag in tags if not tag.may_be_words]
    if len(asked) == len(tags) or len(_assign(asked, num_images)) < num_images:
        return turns
    return [
        Utterance(turn.role, as_words(turn.pieces, lambda tag: not tag.problem))
        if is_aside(turn.role)
        else turn
        for turn in turns
    ]


def _text(turn: Utterance) -> str:
    """What a turn says; blanks at its ends stay only where no placeholder stood in it."""
    texts = [piece for piece in turn.pieces if isinstance(piece, str)]
    joined = join_pieces(texts)
    if len(texts) == len(turn.pieces):
        return joined
    if any(isinstance(piece, Tag) for piece in split_tags(joined)):  # `<ima<image>ge>`
        joined = " ".join(texts)
    return joined.strip()


def _home(turns: Sequence[Utterance], texts: list[str], number: int, position: int) -> int:
    """The turn whose text an image at a position of a turn belongs to."""
    behind = turns[number].pieces[position + 1 :]
    if any(isinstance(piece, str) and piece.strip() for piece in behind):
        return number
    following = (k for k in range(number + 1, len(texts)) if texts[k].strip())
    before = (k for k in range(number, -1, -1) if texts[k].strip())
    return next(following, next(before, number))


def _first_turn(turns: Sequence[Utterance], texts: list[str]) -> int:
    """The first turn with text that is not the system's; the first with text otherwise."""
    with_text = [number for number, text in enumerate(texts) if text.strip()]
    said = (number for number in with_text if canonical(turns[number].role) != "system")
    return next(said, with_text[0])


def _mismatches(
    tags: list[_Stand], listed: dict[int, int], num_images: int
) -> list[tuple[str, str]]:
    """What does not add up, as notes."""
    notes = []
    counts = f"{len(tags)} placeholders, {num_images} images"
    in_answers = sum(is_answer(tag.role) for tag in tags)
    if not tags and num_images:
        notes.append((DocumentNote.NO_TAGS.value, counts))
    elif len(listed) < num_images:
        notes.append((DocumentNote.FEWER_TAGS_THAN_IMAGES.value, counts))
    elif len(tags) > len(listed):
        notes.append((DocumentNote.MORE_TAGS_THAN_IMAGES.value, counts))
    if in_answers:
        detail = f"{in_answers} of {len(tags)} placeholders"
        notes.append((DocumentNote.TAG_IN_ANSWER.value, detail))
    return notes


def _refuse(notes: list[tuple[str, str]], on_mismatch: OnTagMismatch) -> None:
    detail = "; ".join(f"{note}: {text}" for note, text in notes)
    if on_mismatch == "drop":
        raise RecordDropped(DocumentDrop.TAG_MISMATCH, detail)
    raise RecordError(f"{detail} (--on-tag-mismatch first-turn or drop goes on)")


def _assign(tags: list[_Stand], num_images: int) -> dict[int, int]:
    """The placeholder (by its place in `tags`) of each image that has one, in their order."""
    found: dict[int, int] = {}
    rest = []
    for place, (tag, _, _) in enumerate(tags):
        if not tag.pointed or tag.number is None:
            rest.append(place)
        elif tag.number < num_images:
            found.setdefault(tag.number, place)
    free = [index for index in range(num_images) if index not in found]
    rest = _those_that_stay(rest, tags, len(free))
    numbers = [tags[place].tag.number for place in rest]
    known = [number for number in numbers if number is not None]
    if not found and known and len(known) == len(numbers):
        first = 0 if min(known) == 0 else 1
        if max(known) - first < num_images:
            for place, number in zip(rest, known, strict=True):
                found.setdefault(number - first, place)
            return found
    return found | dict(zip(free, rest, strict=False))


def _those_that_stay(places: list[int], tags: list[_Stand], wanted: int) -> list[int]:
    """Placeholders, fewer of them where there are too many: some give way before others."""
    unsure = {place for place in places if tags[place].tag.unsure}
    words = {place for place in places if tags[place].may_be_words}
    for giving_way in (unsure, words):
        kept = [place for place in places if place not in giving_way]
        if len(places) > wanted and len(kept) >= wanted:
            places = kept
    return places
