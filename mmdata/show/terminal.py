"""Samples in a terminal: sentences in order, each picture below its sentence with its numbers.

Everything from data goes in as text of its own (never as markup) and without what would act on a
terminal. Previews take a third of the width and of the height at most.
"""

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mmdata.images import ImageRejected
from mmdata.show.options import Show
from mmdata.show.preview import half_blocks
from mmdata.show.text import by_sentence, image_line, source_lines
from mmdata.show.view import ImageView, SampleView, views
from mmdata.training_view.defaults import MIN_SIMILARITY
from mmdata.validation.findings import printable
from mmdata.wording import plural

#: A cosine of CLIP's that is as good as they get; the bar is full there.
_FULL_BAR = 0.4
_BAR_CELLS = 10
_WEAK_MARGIN = 0.0


def show_in_terminal(options: Show, console: Console, *, preview: bool) -> None:
    """Print the samples that `views` finds.

    Args:
        options: which samples.
        console: where they go.
        preview: whether pictures are drawn.

    Raises:
        UserError: a path or key does not exist.
        BadInputError: a shard is damaged.
    """
    for view in views(options):
        console.print(sample(view, console, preview=preview))


def sample(view: SampleView, console: Console, *, preview: bool) -> RenderableType:
    """One sample, for this console."""
    parts: list[RenderableType] = [Rule(Text(printable(view.key), "bold"), align="left")]
    where = f"{view.shard} @ {view.offset} ({plural(view.num_bytes, 'byte')})"
    facts = [printable(where), *source_lines(view)]
    facts += [f"{name}: {printable(value)}" for name, value in view.fields.items()]
    facts += [f"{printable(kind)}: {plural(size, 'byte')}" for kind, size in view.others]
    parts += [Text(fact, "dim", overflow="fold") for fact in facts]
    if view.error:
        parts.append(Text(f"not a document: {printable(view.error)}", "red"))
        return Group(*parts)
    counts = f"{plural(len(view.sentences), 'sentence')}, {plural(len(view.images), 'image')}"
    parts += [Text(counts, "dim"), Text("")]
    placed = by_sentence(view)
    for number, sentence in enumerate(view.sentences):
        parts.append(_sentence(number, Text(printable(sentence), overflow="fold")))
        images = placed.pop(number, [])
        parts += [_image(image, console, preview=preview) for image in images]
    for index, images in sorted(placed.items()):
        label = "at no sentence" if index < 0 else f"[{index}] (there is no such sentence)"
        parts.append(Text(f"  {label}", "red"))
        parts += [_image(image, console, preview=preview) for image in images]
    return Group(*parts)


def _sentence(number: int, text: Text) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_column(justify="right", min_width=5, no_wrap=True)
    line.add_column(ratio=1)
    line.add_row(Text(f"[{number}]", "cyan"), text)
    return line


def _image(image: ImageView, console: Console, *, preview: bool) -> RenderableType:
    """A picture, its facts beside it."""
    facts = Text(image_line(image), overflow="fold")
    lines: list[RenderableType] = [facts]
    if image.similarity is not None:
        lines.append(_bar(image.similarity, image.margin))
    picture: RenderableType = Text("")
    if preview and image.data is not None:
        columns, rows = max(console.width // 3, 8), max(console.height // 3, 4)
        try:
            picture = half_blocks(image.data, columns=min(columns, 40), rows=min(rows, 20))
        except ImageRejected as rejected:
            lines.append(Text(printable(str(rejected)), "red"))
    row = Table.grid(padding=(0, 2))
    row.add_row(picture, Group(*lines))
    return Padding(row, (0, 0, 1 if preview else 0, 6))


def _bar(similarity: float, margin: float | None) -> Text:
    """The similarity as a bar: green where training would take it, yellow where it would not."""
    filled = round(min(max(similarity / _FULL_BAR, 0.0), 1.0) * _BAR_CELLS)
    colour = "green" if similarity >= MIN_SIMILARITY else "yellow"
    bar = Text("━" * filled, colour)
    bar.append("━" * (_BAR_CELLS - filled), "dim")
    bar.append(f" {similarity:.4f}", colour)
    if margin is not None and margin < _WEAK_MARGIN:
        bar.append(f"  {-margin:.4f} below its best sentence", "dim")
    return bar
