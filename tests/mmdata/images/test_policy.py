"""The policy: checked values, and no heavy imports for those who only name it."""

import subprocess
import sys

import pytest

from mmdata.images.policy import ImagePolicy


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verify", "deep"),
        ("jpeg_warnings", "log"),
        ("max_pixels", 0),
        ("max_bytes", 0),
        ("min_side", -1),
        ("min_bytes", -1),
        ("max_aspect", 0.5),
        ("max_aspect", float("nan")),
        ("max_side", 0),
        ("resize_mode", "widest"),
        ("image_format", "gif"),
        ("quality", 0),
        ("quality", 101),
    ],
)
def test_a_value_without_sense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ImagePolicy(**{field: value})  # type: ignore[arg-type]


def test_importing_the_policy_loads_no_image_library() -> None:
    code = (
        "import sys, mmdata.images.policy, mmdata.images;"
        "print([m for m in ('numpy', 'PIL', 'simplejpeg', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_exports_its_names() -> None:
    import mmdata.images as images

    for name in images.__all__:
        assert getattr(images, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        images.nothing  # noqa: B018
