"""How fast large photographs become small: `--max-side` against Pillow alone.

    python -m benchmarks.resize [--side 336] [--runs 7]

Photographs of 12 megapixels are put together from the sample's (a mosaic at their own scale: no
upscaling, so as much detail as a camera's), encoded at three qualities. Each is timed, by turns,
one thread, from its bytes to the bytes of the small JPEG:

* `Pillow`: decode, LANCZOS, encode; what resizing costs without thought;
* `draft`: the same behind Pillow's draft mode (a reduced decode, not strict);
* `mmdata`: `prepare_image`, which also walks the file and decodes strictly.

The gate is the baseline photograph of quality 75, the commonest on the web; a denser file spends
more of its time in entropy decoding, which no reduced scale saves. dB is the PSNR against the
first, before encoding's own loss: how near the shortcut comes.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.gates import Gate, median_ratio, print_gates
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


def paired_seconds(works: dict[str, Callable[[], bytes]], runs: int) -> dict[str, list[float]]:
    """Seconds of each, by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def psnr(one: bytes, other: bytes) -> float:
    """Of two encoded images of one size, in dB."""
    a, b = (np.asarray(Image.open(BytesIO(data)), dtype=np.float64) for data in (one, other))
    return float(10 * np.log10(255**2 / max(((a - b) ** 2).mean(), 1e-9)))


def bench(side: int = 336, runs: int = 7) -> list[Gate]:
    """Measure, and print the table: a row for each kind of photograph."""
    pictures = photographs(Path("examples/mmc4").resolve())
    print(
        f"12-megapixel JPEGs to {side} px, medians of {runs} runs by turns; ms an image, one core"
    )
    columns = f"{'Pillow':>11}{'draft':>11}{'mmdata':>11}{'x draft':>9}{'x mmdata':>9}{'dB':>8}"
    print(f"{'':<13}{'quality':>7}{'MB':>8}{columns}")
    times_as_fast = {}
    for quality, progressive in ((75, False), (85, False), (92, False), (85, True)):
        out = BytesIO()
        mosaic(pictures, quality).save(out, "JPEG", quality=quality, progressive=progressive)
        data = out.getvalue()
        works: dict[str, Callable[[], bytes]] = {
            "Pillow": partial(by_pillow, data, side, draft=False),
            "draft": partial(by_pillow, data, side, draft=True),
            "mmdata": partial(by_us, data, side),
        }
        seconds = paired_seconds(works, runs)
        draft = median_ratio(seconds["Pillow"], seconds["draft"])
        ours = median_ratio(seconds["Pillow"], seconds["mmdata"])
        times_as_fast[quality, progressive] = ours
        times = "".join(f"{median(one) * 1e3:>11.1f}" for one in seconds.values())
        likeness = psnr(works["mmdata"](), works["Pillow"]())
        kind = "progressive" if progressive else "baseline"
        row = f"{kind:<13}{quality:>7}{len(data) / 1e6:>8.1f}{times}"
        print(f"{row}{draft:>9.1f}{ours:>9.1f}{likeness:>8.1f}", flush=True)
    print("x: times as fast as Pillow")
    name = f"--max-side {side}, 12-megapixel JPEGs of quality 75, times Pillow"
    return [Gate(name, times_as_fast[75, False], AIM)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=336, help="--max-side, px")
    parser.add_argument("--runs", type=int, default=7)
    print_gates(bench(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
