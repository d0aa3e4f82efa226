"""A document that is too long for one sample, cut into several, so that no image goes to waste.

OpenFlamingo cuts a document after its first 6 images and 256 tokens and throws the rest away. Here
it is cut where a tag begins: an image stays with the text behind it, and consecutive images fill
a chunk until the tokens or the images are too many.

The text before the first image trains nothing and is only read: of it as many sentences stay, the
last ones, as there is room for. An image whose own text is longer than a chunk has it cut, as
truncation would do.

Cost: the whole document is tokenised, where truncation tokenises what may be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmdata.training_view.sequence import MediaTokenizer, split_at_tags

#: (image, sentence), as selection gives them.
Pair = tuple[int, int]


@dataclass(slots=True)
class Chunk:
    """A part of a document that becomes a sample.

    Attributes:
        input_ids: its tokens.
        pairs: its images, the k-th for its k-th tag, and their sentences.
        first: sentence that it begins with.
        last: sentence that it ends before.
    """

    input_ids: list[int]
    pairs: list[Pair]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class CutDocument:
    """What cutting came to.

    Attributes:
        chunks: in the order of the text; each has an image and a token behind it.
        over_cap: images beyond `max_images` that share one sentence.
        cut_off: images for whose text there is no room at all.
    """

    chunks: list[Chunk]
    over_cap: list[int] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)


def cut_document(
    sentences: Sequence[str],
    pairs: Sequence[Pair],
    tokenizer: MediaTokenizer,
    *,
    max_tokens: int,
    max_images: int,
) -> CutDocument:
    """Cut a document into chunks of at most so many tokens and images.

    Args:
        sentences: its texts.
        pairs: (image, sentence) in the order of the sentences; at least one.
        tokenizer: what makes ids.
        max_tokens: of a chunk; the end token behind its last chunk may be beyond.
        max_images: of a chunk.
    """
    head, groups = _groups(sentences, pairs, tokenizer)
    cut = CutDocument([])
    for group in groups:
        cut.over_cap.extend(image for image, _ in group.pairs[max_images:])
        surplus = max(0, len(group.pairs) - max_images)
        group.pairs, group.input_ids = group.pairs[:max_images], group.input_ids[surplus:]
    room = max_tokens - len(tokenizer.prefix)
    runs: list[list[Chunk]] = []
    for group in groups:
        if not runs or not _fits([*runs[-1], group], room, max_images):
            runs.append([])
        runs[-1].append(group)
    for run in runs:
        before = _tail(sentences, run[0].first, room - _length(run), tokenizer) if head else []
        first = run[0].first - len(before)
        text = head if len(before) == run[0].first else _encode(before, tokenizer)
        head = []
        ids = [*tokenizer.prefix, *text]
        ids += [token for group in run for token in group.input_ids]
        chunk = Chunk(
            [*ids, tokenizer.eos_id][:max_tokens],
            [pair for group in run for pair in group.pairs],
            first,
            run[-1].last,
        )
        if chunk.input_ids[-1] == tokenizer.image_id:
            cut.cut_off.extend(image for image, _ in chunk.pairs)
        else:
            cut.chunks.append(chunk)
    return cut


def _groups(
    sentences: Sequence[str], pairs: Sequence[Pair], tokenizer: MediaTokenizer
) -> tuple[list[int], list[Chunk]]:
    """The ids before the first tag, and each sentence's tags with the text up to the next tag."""
    texts, _ = split_at_tags(sentences, [sentence for _, sentence in pairs])
    starts = sorted({sentence for _, sentence in pairs})
    head, *bodies = tokenizer.encode_texts(texts)
    groups = []
    for start, end, body in zip(starts, [*starts[1:], len(sentences)], bodies, strict=True):
        own = [pair for pair in pairs if pair[1] == start]
        ids = [tokenizer.image_id] * len(own) + body + [tokenizer.endofchunk_id]
        groups.append(Chunk(ids, own, start, end))
    return head, groups


def _length(run: Sequence[Chunk]) -> int:
    return sum(len(group.input_ids) for group in run)


def _fits(run: Sequence[Chunk], room: int, max_images: int) -> bool:
    return _length(run) <= room and sum(len(group.pairs) for group in run) <= max_images


def _encode(sentences: Sequence[str], tokenizer: MediaTokenizer) -> list[int]:
    return tokenizer.encode_text(" ".join(sentences)) if sentences else []


def _tail(
    sentences: Sequence[str], end: int, room: int, tokenizer: MediaTokenizer
) -> Sequence[str]:
    """The last sentences before `end` that fit into so many tokens, all of them if they do."""
    low, high = 0, end  # invariant: sentences[high:end] fits
    while low < high:
        middle = (low + high) // 2
        if len(_encode(sentences[middle:end], tokenizer)) <= room:
            high = middle
        else:
            low = middle + 1
    return sentences[high:end]
