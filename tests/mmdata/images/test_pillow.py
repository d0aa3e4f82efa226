"""Pillow's decoding, as far as it is not Pillow's own way: WebP's decoder is let go early."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mmdata.images import ImageRejected
from mmdata.images.pillow import load
from mmdata.images.webp import read_header
from schemas.reasons import ImageDrop

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
PIXELS[..., 3] |= 1  # fully transparent pixels lose their colour


def webp(**options: object) -> bytes:
    out = BytesIO()
    Image.fromarray(PIXELS).save(out, "WEBP", lossless=True, **options)
    return out.getvalue()


@pytest.mark.parametrize("animated", [False, True])
def test_the_first_frame_of_a_webp_comes_back_whole(animated: bool) -> None:
    other = Image.fromarray(PIXELS[::-1].copy())
    data = webp(save_all=True, append_images=[other]) if animated else webp()
    image, _ = load(data, read_header(data), 10_000)
    assert np.array_equal(np.asarray(image), PIXELS)
    assert np.array_equal(np.asarray(image.rotate(180).rotate(180)), PIXELS)  # and stays usable


def test_a_webp_whose_frame_does_not_decode_is_refused_in_pillows_words() -> None:
    whole = webp()
    kept = 256  # bytes of coded pixels; all lengths say that no more belong to it
    coded = whole[12:16] + kept.to_bytes(4, "little") + whole[20 : 20 + kept]
    data = b"RIFF" + (4 + len(coded)).to_bytes(4, "little") + b"WEBP" + coded
    with pytest.raises(ImageRejected, match="WEBP: failed to read next frame") as refused:
        load(data, read_header(data), 10_000)
    assert refused.value.reason is ImageDrop.UNREADABLE
