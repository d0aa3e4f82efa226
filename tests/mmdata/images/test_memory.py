"""What the largest images that a worker is promised to hold (24 megapixels) take of its 600 MiB.

Each is prepared in a fresh process, whose high-water mark is read: interpreter, libraries, the
encoded file and every copy of the pixels. The rest of the 600 is Ray's and the document's.
"""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (6000, 4000)
LIMIT_MIB = 400
CODE = """
import sys
from mmdata.images import ImagePolicy, prepare_image
with open(sys.argv[1], "rb") as file:
    data = file.read()
prepared = prepare_image(data, ImagePolicy())
assert prepared.width * prepared.height == 24_000_000
with open("/proc/self/status") as status:  # ru_maxrss would count the parent's at the fork
    print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""
ROTATED = Image.Exif()
ROTATED[0x0112] = 6
#: (mode, format, options of Pillow's save)
KINDS = {
    "jpeg-progressive": ("RGB", "JPEG", {"quality": 90, "progressive": True}),
    "jpeg-rotated": ("RGB", "JPEG", {"quality": 90, "exif": ROTATED}),
    "jpeg-cmyk": ("CMYK", "JPEG", {"quality": 90}),
    "png-alpha": ("RGBA", "PNG", {"compress_level": 1}),
    "png-16-bit": ("I;16", "PNG", {"compress_level": 1}),
    "webp": ("RGB", "WEBP", {"quality": 80, "method": 0}),
    "webp-alpha": ("RGBA", "WEBP", {"quality": 80, "method": 0}),
    "webp-lossless": ("RGB", "WEBP", {"lossless": True, "quality": 0, "method": 0}),
}
#: What takes most memory of each decoder; the others are of the matrix.
WORST = ("jpeg-cmyk", "png-alpha", "webp-lossless")


def picture(mode: str) -> Image.Image:
    """Smooth noise: large enough a file, quick to encode."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (SIZE[1] // 16, SIZE[0] // 16, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image.putalpha(image.getchannel(0))
    elif mode == "I;16":
        return Image.fromarray(np.asarray(image.getchannel(0)).astype(np.uint16) * 257)
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "kind",
    [name if name in WORST else pytest.param(name, marks=pytest.mark.matrix) for name in KINDS],
)
def test_an_image_of_24_megapixels_leaves_a_worker_room(kind: str, tmp_path: Path) -> None:
    mode, name, options = KINDS[kind]
    out = BytesIO()
    picture(mode).save(out, name, **options)
    path = tmp_path / "image"
    path.write_bytes(out.getvalue())
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= LIMIT_MIB
