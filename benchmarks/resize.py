"""How fast large photographs become small: `--max-side` against Pillow alone.

    python -m benchmarks.resize [--side 336] [--runs 5]

Photographs of 12 megapixels are put together from the sample's (a mosaic at their own scale: no
upscaling, so as much detail as a camera's), encoded at three qualities. Each is timed, best of the
runs, one thread, from its bytes to the bytes of the small JPEG:

* `Pillow`: decode, LANCZOS, encode; what resizing costs without thought;
* `draft`: the same behind Pillow's draft mode (a reduced decode, not strict);
* `mmdata`: `prepare_image`, which also walks the file and decodes strictly.

dB is the PSNR against the first, before encoding's own loss: how near the shortcut comes.
"""

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.make_corpus import photographs
from mmdata.images import ImagePolicy, prepare_image

SIZE = (4000, 3000)
ROW_PX = 500
#: What `mmdata` is to reach, in multiples of `Pillow`.
AIM = 8.0


def mosaic(pictures: list[Image.Image], seed: int) -> Image.Image:
    """12 megapixels of photographs, in rows, at about their own scale."""
    rng = np.random.default_rng(seed)
    sheet = Image.new("RGB", SIZE)
    for top in range(0, SIZE[1], ROW_PX):
        left = 0
        while left < SIZE[0]:
            picture = pictures[int(rng.integers(len(pictures)))]
            width = round(picture.width * ROW_PX / picture.height)
            sheet.paste(picture.resize((width, ROW_PX)), (left, top))
            left += width
    return sheet


def by_pillow(data: bytes, side: int, *, draft: bool) -> bytes:
    """Decode, LANCZOS, encode."""
    image = Image.open(BytesIO(data))
    scale = side / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    if draft:
        image.draft("RGB", size)
    out = BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=95)
    return out.getvalue()


def by_us(data: bytes, side: int) -> bytes:
    """What a conversion does with an image."""
    return prepare_image(data, ImagePolicy(max_side=side)).data


def best_seconds(work: Callable[[], bytes], runs: int) -> float:
    """The shortest of several runs."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def psnr(one: bytes, other: bytes) -> float:
    """Of two encoded images of one size, in dB."""
    a, b = (np.asarray(Image.open(BytesIO(data)), dtype=np.float64) for data in (one, other))
    return float(10 * np.log10(255**2 / max(((a - b) ** 2).mean(), 1e-9)))


def rows(pictures: list[Image.Image], side: int, runs: int) -> list[str]:
    """The table: a row for each kind of photograph."""
    found = []
    for quality, progressive in ((75, False), (85, False), (92, False), (85, True)):
        out = BytesIO()
        mosaic(pictures, quality).save(out, "JPEG", quality=quality, progressive=progressive)
        data = out.getvalue()
        plain = best_seconds(lambda data=data: by_pillow(data, side, draft=False), runs)
        draft = best_seconds(lambda data=data: by_pillow(data, side, draft=True), runs)
        ours = best_seconds(lambda data=data: by_us(data, side), runs)
        kind = "progressive" if progressive else "baseline"
        likeness = psnr(by_us(data, side), by_pillow(data, side, draft=False))
        found.append(
            f"{kind:<13}{quality:>7}{len(data) / 1e6:>8.1f}{plain * 1e3:>11.1f}{draft * 1e3:>11.1f}"
            f"{ours * 1e3:>11.1f}{plain / draft:>9.1f}{plain / ours:>9.1f}{likeness:>8.1f}"
        )
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=336, help="--max-side, px")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    pictures = photographs(Path("examples/mmc4").resolve())
    table = rows(pictures, options.side, options.runs)
    print(f"12-megapixel JPEGs to {options.side} px, best of {options.runs}; ms an image, one core")
    print(
        f"{'':<13}{'quality':>7}{'MB':>8}{'Pillow':>11}{'draft':>11}{'mmdata':>11}{'x draft':>9}"
        f"{'x mmdata':>9}{'dB':>8}"
    )
    print("\n".join(table))
    print(f"x: times as fast as Pillow; the aim for mmdata is {AIM:g}")


if __name__ == "__main__":
    main()
