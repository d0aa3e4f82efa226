"""The gallery: each image beside its sentence, and the matrix that says how it came to be there.

The matrix is a table, so that it can be read aloud; colours are classes of ten steps over one range
for the whole page, and the chosen assignment has a frame and a word, not a colour alone. Sentences
and images are counted from 0, as in the data. Everything a filter needs stands in `data-`
attributes.
"""

import json
import math
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from mmdata.html import numbers
from mmdata.html.markup import Child, Markup, element, shortened
from mmdata.report.contents import Contents
from mmdata.report.gallery import MAX_IMAGES, MAX_SENTENCES, ShownDocument, ShownImage
from mmdata.report.sections import section

_LEVELS = 10
_BOX = 128  # px, the longest side of a picture on the page
_SETS = {"random": "random sample", "worst": "worst aligned", "best": "best aligned"}
_ROUND = 20  # the range of colours is rounded to a twentieth


class HeatScale:
    """Similarities to the ten steps of colour."""

    def __init__(self, documents: Sequence[ShownDocument]) -> None:
        rows = chain.from_iterable(document.matrix for document in documents)
        values = [value for row in rows for value in row if math.isfinite(value)]
        values += [d.similarity for d in documents if d.similarity is not None]
        self.low = math.floor(min(values, default=0.0) * _ROUND) / _ROUND
        self.high = math.ceil(max(values, default=1.0) * _ROUND) / _ROUND
        if self.high <= self.low:
            self.high = self.low + 1 / _ROUND

    def level(self, value: float) -> int:
        """0 for the least, 9 for the greatest."""
        place = (value - self.low) / (self.high - self.low)
        return max(0, min(_LEVELS - 1, int(place * _LEVELS)))

    def legend(self) -> Markup:
        """The steps and the range that they cover."""
        steps = [element("span", class_=f"h{level}") for level in range(_LEVELS)]
        return element(
            "p",
            "similarity ",
            numbers.short_cosine(self.low),
            element("span", *steps, class_="ramp", aria_hidden="true"),
            numbers.short_cosine(self.high),
            element("span", element("span", "0.31", class_="cell h5 on"), " chosen", class_="key"),
            class_="legend",
        )


def gallery(contents: Contents) -> Markup:
    """The whole section."""
    documents = contents.documents
    if not documents:
        text = element("p", "No documents to show.", class_="muted")
        return section("gallery", "Gallery", text)
    scale = HeatScale(documents)
    sampled = sum("random" in document.sets for document in documents)
    total = contents.summary.documents
    lead = f"{numbers.plural(sampled, 'document')} of {total:,} drawn at random "
    lead += f"(seed {contents.seed})"
    if sampled < len(documents) or any(len(document.sets) > 1 for document in documents):
        lead += ", and those whose images fit worst and best by their mean similarity"
    lead += ". Sentences and images are counted from 0, as in the data."
    cards = [_card(document, number, scale) for number, document in enumerate(documents)]
    return section(
        "gallery",
        "Gallery",
        element("p", lead, class_="lead"),
        _filters(documents),
        scale.legend(),
        element("div", *cards, id="cards", class_="cards"),
    )


def _filters(documents: Sequence[ShownDocument]) -> Markup:
    """The form; the page's script acts on it, and without the script it is not shown."""
    sets = Counter(chain.from_iterable(document.sets for document in documents))
    reasons = Counter(chain.from_iterable(document.reasons for document in documents))
    clean = sum(not document.reasons for document in documents)
    which = [("", f"all ({len(documents)})")]
    which += [(name, f"{words} ({sets[name]})") for name, words in _SETS.items() if sets[name]]
    why = [("", "any"), ("-", f"nothing dropped ({clean})")]
    # A value of its own for each, so that no reason can be taken for one of the two above.
    why += [(f"={name}", f"{name} ({number})") for name, number in sorted(reasons.items())]
    orders = [("", "as picked"), ("up", "lowest similarity"), ("down", "highest similarity")]
    orders.append(("images", "most images"))
    everything = f"{len(documents):,} of {numbers.plural(len(documents), 'document')}"
    return element(
        "form",
        _choice("set", "Documents", which),
        _choice("reason", "Dropped for", why),
        _range("similarity", "Mean similarity", "0.01"),
        _range("images", "Images", "1"),
        _choice("order", "Order", orders),
        element(
            "div",
            element("output", everything, id="shown", aria_live="polite", for_="cards"),
            element("button", "Reset", type="reset"),
            class_="ending",
        ),
        id="filters",
        class_="filters panel",
        autocomplete="off",
        aria_label="Filter the gallery",
    )


def _choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> Markup:
    inner = [element("option", words, value=value) for value, words in options]
    return element(
        "div",
        element("label", label, for_=f"filter-{name}"),
        element("select", *inner, id=f"filter-{name}", name=name),
    )


def _range(name: str, label: str, step: str) -> Markup:
    fields = [
        element(
            "input",
            type="number",
            step=step,
            name=f"{name}-{end}",
            placeholder=end,
            aria_label=f"{label}: {words}",
        )
        for end, words in (("min", "at least"), ("max", "at most"))
    ]
    return element(
        "fieldset",
        element("legend", label),
        element("div", fields[0], element("span", "to", aria_hidden="true"), fields[1]),
    )


def _card(document: ShownDocument, number: int, scale: HeatScale) -> Markup:
    similarity = document.similarity
    return element(
        "article",
        _head(document, number, scale),
        element("p", document.problem, class_="problem") if document.problem else None,
        _pairs(document, scale),
        _matrix(document, number, scale),
        _sentences(document),
        _rejects(document),
        class_="card panel",
        aria_labelledby=f"doc-{number}",
        data_sets=" ".join(document.sets),
        data_reasons=json.dumps(document.reasons),
        data_similarity="" if similarity is None else f"{similarity:.6f}",
        data_images=document.num_images,
        data_place=number,
    )


def _head(document: ShownDocument, number: int, scale: HeatScale) -> Markup:
    chips: list[Child] = [element("span", _SETS[name], class_="chip") for name in document.sets]
    if document.unused:
        chips.append(element("span", f"not trained on: {document.unused}", class_="chip warn"))
    facts: list[Child] = [
        f"{numbers.plural(document.num_images, 'image')}, "
        f"{numbers.plural(document.num_sentences, 'sentence')}"
    ]
    if document.similarity is not None:
        facts += [", mean similarity ", _value(document.similarity, scale)]
    made = ", ".join(part for part in (document.alignment, document.similarity_source) if part)
    origin = [element("div", document.source, class_="where", dir="auto")]
    if document.url:
        origin.append(element("div", document.url, class_="where", dir="auto"))
    origin.append(element("div", f"{document.shard} · {made}", class_="where"))
    return element(
        "header",
        element("h3", element("code", document.key), id=f"doc-{number}"),
        element("div", chips, class_="chips"),
        element("p", facts, class_="facts-line"),
        origin,
    )


def _value(similarity: float, scale: HeatScale) -> Markup:
    level = scale.level(similarity)
    return element("span", numbers.cosine(similarity), class_=f"cell h{level}")


def _pairs(document: ShownDocument, scale: HeatScale) -> Markup | None:
    """Each image beside its sentence."""
    if not document.images:
        return element("p", "No images.", class_="muted")
    items = [_pair(document, image, scale) for image in document.images]
    more = document.num_images - len(items)
    if more > 0:
        items.append(element("li", f"and {numbers.plural(more, 'more image')}", class_="muted"))
    return element("ul", items, class_="pairs")


def _pair(document: ShownDocument, image: ShownImage, scale: HeatScale) -> Markup:
    words = image.text or "(not known)"
    facts: list[Child] = [f"image {image.number}"]
    if image.similarity is not None:
        facts = [f"{facts[0]}, similarity ", _value(image.similarity, scale)]
    if image.margin is not None:
        sign = "+" if image.margin >= 0 else ""
        margin = f"margin {sign}{numbers.cosine(image.margin)}"
        facts += [" ", element("span", margin, class_="muted")]
    size = f"{image.width} {numbers.TIMES} {image.height} {image.format}"
    size += f", {numbers.num_bytes(image.num_bytes)}"
    lines: list[Child] = [
        element("p", facts),
        element(
            "blockquote",
            element("span", f"{image.sentence} ", class_="index"),
            element("span", words, dir="auto"),
        ),
    ]
    if image.unused:
        lines.append(element("p", f"not trained on: {image.unused}", class_="chip warn"))
    origin = [
        element("p", text, class_="where", dir="auto") for text in (image.name, image.url) if text
    ]
    if origin:
        lines.append(element("details", element("summary", size), origin, class_="where"))
    else:
        lines.append(element("p", size, class_="where"))
    return element("li", _picture(document, image), element("div", *lines))


def _picture(document: ShownDocument, image: ShownImage) -> Markup:
    drawn = image.thumbnail
    if drawn is None:
        why = image.problem or "not read"
        return element("div", element("span", f"no picture: {why}"), class_="frame none")
    scale = _BOX / max(drawn.width, drawn.height)
    sentence = shortened(image.text, 120)
    return element(
        "div",
        element(
            "img",
            src=f"data:image/webp;base64,{b64encode(drawn.data).decode('ascii')}",
            width=max(1, round(drawn.width * min(scale, 1.0))),
            height=max(1, round(drawn.height * min(scale, 1.0))),
            alt=f"Image {image.number} of {document.key}, matched to: {sentence}",
            decoding="async",
        ),
        class_="frame",
    )


def _matrix(document: ShownDocument, number: int, scale: HeatScale) -> Markup | None:
    """The similarities as a heat map, the chosen ones marked."""
    if not document.matrix or not document.matrix[0]:
        return None
    chosen = {image.number: image.sentence for image in document.images}
    columns = len(document.matrix[0])
    head = [element("th", "image", scope="col")]
    head += [element("th", column, scope="col") for column in range(columns)]
    rows = []
    for image, values in enumerate(document.matrix):
        cells = [_cell(value, scale, chosen.get(image) == at) for at, value in enumerate(values)]
        rows.append(element("tr", element("th", image, scope="row"), cells))
    caption = f"Similarity of the images (rows) to the sentences (columns) of {document.key}"
    cut = document.num_images > MAX_IMAGES or document.num_sentences > MAX_SENTENCES
    return element(
        "div",
        element(
            "div",
            element(
                "table",
                element("caption", caption, class_="hidden"),
                element("thead", element("tr", head)),
                element("tbody", rows),
                class_="heat",
            ),
            class_="scroll",
            tabindex=0,
            role="region",
            aria_label=f"Similarity matrix of {document.key}",
        ),
        element("p", f"cut to {len(rows)} {numbers.TIMES} {columns}", class_="muted")
        if cut
        else None,
    )


def _cell(value: float, scale: HeatScale, is_chosen: bool) -> Markup:  # noqa: FBT001
    if not math.isfinite(value):
        return element("td", "n/a")
    words = numbers.short_cosine(value).replace("0.", ".", 1)
    note = element("span", " chosen", class_="hidden") if is_chosen else None
    kind = f"h{scale.level(value)}" + (" on" if is_chosen else "")
    return element("td", words, note, class_=kind)


def _sentences(document: ShownDocument) -> Markup | None:
    if not document.sentences:
        return None
    matched = {image.sentence for image in document.images}
    items = [
        element(
            "li",
            element("span", f"{index} ", class_="index"),
            element("span", text, dir="auto"),
            class_="on" if index in matched else None,
        )
        for index, text in enumerate(document.sentences)
    ]
    more = document.num_sentences - len(items)
    if more > 0:
        items.append(element("li", f"and {more:,} more", class_="muted"))
    title = f"Text ({numbers.plural(document.num_sentences, 'sentence')})"
    return element(
        "details", element("summary", title), element("ul", items, class_="plain sentences")
    )


def _rejects(document: ShownDocument) -> Markup | None:
    """What the conversion dropped of it, or set right."""
    if not document.rejects:
        return None
    lines = []
    for reject in document.rejects:
        what = f"image {reject.image}" if reject.image else "document"
        action = "kept" if reject.action == "kept" else "dropped"
        detail = f": {reject.detail}" if reject.detail else ""
        words = [f"{what} {action}, ", element("code", reject.reason), detail]
        lines.append(element("li", words, dir="auto"))
    title = f"From the conversion ({len(lines)})"
    return element("details", element("summary", title), element("ul", lines, class_="plain"))
