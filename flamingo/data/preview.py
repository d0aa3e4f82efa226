"""The first batches as one HTML page: each picture in the place of its tag, what trains in black.

It is how one sees that pictures and text belong together, before hours of training on pairs that
do not. The pictures are the pixels that the model gets, embedded; the page needs nothing else.
"""

import base64
import io
from collections.abc import Iterable
from html import escape
from os import PathLike
from pathlib import Path

from PIL import Image
from torch import Tensor

from flamingo.data.batch import Batch
from flamingo.data.text_layout import TextLayout
from mmdata.wording import plural

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Training data</title>
<style>
body { font: 15px/1.6 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
section { border-top: 1px solid #ccc; padding: 1em 0 }
h2 { font-size: 1em; margin: 0 }
small { color: #666 }
img { display: block; height: 168px; margin: .4em 0 }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
.masked { color: #aaa }
.tag { background: #eee; border-radius: 3px; font-size: .8em; padding: 0 .3em }
</style>
<h1>Training data</h1>
<p>Black text is learned, gray text is only read. Each picture stands where its
<span class="tag">&lt;image&gt;</span> tag is.</p>
"""


def write_preview(batches: Iterable[Batch], layout: TextLayout, path: str | PathLike[str]) -> None:
    """Write the page.

    Args:
        batches: to show, all of them.
        layout: of their text.
        path: of the HTML file; replaced if it is there.
    """
    parts = [_HEAD]
    for batch in batches:
        first = first_key = 0
        for row in range(len(batch)):
            number = int(batch.images_per_sample[row])
            index = batch.image_index[first : first + number]
            images = [] if batch.pixels is None else [*batch.pixels[index]]
            packed = 1 if batch.document_index is None else int(batch.document_index[row].max()) + 1
            samples = slice(first_key, first_key + packed)
            parts.append(_sequence(batch, row, samples, images, layout))
            first, first_key = first + number, samples.stop
    Path(path).write_text("".join([*parts, "</html>\n"]), encoding="utf-8")


def _sequence(
    batch: Batch, row: int, samples: slice, images: list[Tensor], layout: TextLayout
) -> str:
    """One row of a batch: its samples' place in `batch.keys`, and its images, (3, S, S) each."""
    length = int(batch.attention_mask[row].sum())
    tokenizer, labels = layout.tokenizer, batch.labels[row : row + 1]
    ids, learned = layout.shown(batch.input_ids[row, :length], labels[0])
    body = []
    num_tags = 0
    for is_learned, run in _runs(ids, learned, tokenizer.image_id):
        if run == [tokenizer.image_id]:
            body.append(_picture(images[num_tags]) if num_tags < len(images) else _NO_PICTURE)
            num_tags += 1
        else:
            style = "learned" if is_learned else "masked"
            body.append(f'<span class="{style}">{escape(tokenizer.decode(run))}</span>')
    caption = (
        f"{plural(len(images), 'image')}, {plural(length, 'token')}, "
        f"{layout.num_targets(labels)} learned"
    )
    return (
        f"<section><h2>{escape(', '.join(batch.keys[samples]))}</h2>"
        f"<small>{escape(batch.sources[samples.start])}: {caption}</small>"
        f'<div class="text">{"".join(body)}</div></section>\n'
    )


_NO_PICTURE = '<b class="tag">&lt;image&gt; without a picture</b>'


def _runs(ids: list[int], learned: list[bool], image_id: int) -> list[tuple[bool, list[int]]]:
    """Neighbours that are learned, or masked, alike; each tag by itself."""
    runs: list[tuple[bool, list[int]]] = []
    for token, is_learned in zip(ids, learned, strict=True):
        alone = token == image_id or (bool(runs) and runs[-1][1][-1] == image_id)
        if runs and runs[-1][0] == is_learned and not alone:
            runs[-1][1].append(token)
        else:
            runs.append((is_learned, [token]))
    return runs


def _picture(pixels: Tensor) -> str:
    """(3, S, S) uint8 as an <img> behind its tag."""
    sink = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(sink, "PNG")
    data = base64.b64encode(sink.getvalue()).decode("ascii")
    return f'<span class="tag">&lt;image&gt;</span><img alt="" src="data:image/png;base64,{data}">'
