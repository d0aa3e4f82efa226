"""Which turn an image belongs to: the k-th placeholder is the k-th image.

An image goes with the text that follows it in its turn; where it ends the turn, with the next turn
that has text; where there is none, with its own. What does not add up is settled by a policy, and
counted; the default, `first-turn`, keeps all that can be kept:

- no placeholder at all (`no-tags`): all images go to the first turn that is not the system's;
- fewer than images (`fewer-tags-than-images`): the others go to the turn of the last one placed;
- more than images (`more-tags-than-images`): those in answers give way first, then the last ones;
  all are taken out of the text;
- one in an answer (`tag-in-answer`): it is a place like any other.

`drop` drops the record instead, `error` ends its unit. Placeholders that all carry numbers of
images (`<image_2>`) name them; a number that comes again is one too many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmdata.sources.base import RecordDropped, RecordError, SourceImage
from mmdata.sources.conversations.placeholders import Tag, join_pieces, split_tags
from mmdata.sources.conversations.roles import canonical, is_answer
from schemas.reasons import DocumentDrop, DocumentNote

OnTagMismatch = Literal["error", "first-turn", "drop"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """A turn as it is parsed: texts, placeholders, and images that stand where they belong."""

    role: str
    pieces: list[str | Tag | SourceImage]


@dataclass(frozen=True, slots=True)
class Placed:
    """Turns without placeholders, and the images of them.

    Attributes:
        texts: of the turns.
        images: those of the record's list first, then those that stood in turns.
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
    texts = [_text(turn) for turn in turns]
    if not any(text.strip() for text in texts):
        raise RecordDropped(DocumentDrop.NO_TEXT, "expected a turn with text, got none")
    homes: dict[int, int] = {}
    tags: list[tuple[int, Tag, bool]] = []
    standing: list[SourceImage] = []
    for number, turn in enumerate(turns):
        for position, piece in enumerate(turn.pieces):
            if isinstance(piece, str):
                continue
            home = _home(turns, texts, number, position)
            if isinstance(piece, Tag):
                tags.append((home, piece, is_answer(turn.role)))
            else:
                homes[len(images) + len(standing)] = home
                standing.append(piece)
    notes = _mismatches(tags, len(images))
    if notes and on_mismatch != "first-turn":
        _refuse(notes, on_mismatch)
    listed = _assign(tags, len(images))
    rest = [*listed.values()][-1] if listed else _first_turn(turns, texts)
    for index in range(len(images)):
        homes[index] = listed.get(index, rest)
    found = [*images, *standing]
    return Placed(texts, found, [homes[index] for index in range(len(found))], notes)


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


def _mismatches(tags: list[tuple[int, Tag, bool]], num_images: int) -> list[tuple[str, str]]:
    """What does not add up, as notes."""
    notes = []
    counts = f"{len(tags)} placeholders, {num_images} images"
    in_answers = sum(answer for _, _, answer in tags)
    if not tags and num_images:
        notes.append((DocumentNote.NO_TAGS.value, counts))
    elif len(tags) < num_images:
        notes.append((DocumentNote.FEWER_TAGS_THAN_IMAGES.value, counts))
    elif len(tags) > num_images:
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


def _assign(tags: list[tuple[int, Tag, bool]], num_images: int) -> dict[int, int]:
    """The turn of each image that a placeholder stands for, in the order of the placeholders."""
    if len(tags) > num_images:  # those in answers give way
        asked = [tag for tag in tags if not tag[2]]
        tags = asked if len(asked) >= num_images else tags
    numbers = [tag.number for _, tag, _ in tags if tag.number is not None]
    if len(numbers) == len(tags) and numbers:
        first = 0 if min(numbers) == 0 else 1
        if max(numbers) - first < num_images:
            named: dict[int, int] = {}
            for (home, _, _), number in zip(tags, numbers, strict=True):
                named.setdefault(number - first, home)
            return named
    return {index: home for index, (home, _, _) in enumerate(tags[:num_images])}
