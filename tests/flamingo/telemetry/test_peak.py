"""Boards are known by the names that their driver gives them."""

import pytest

from flamingo.telemetry.peak import peak_flops


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA B300 SXM6 AC", 2250e12),
        ("NVIDIA GB300", 2500e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("Tesla V100-SXM2-16GB", 125e12),
    ],
)
def test_a_board_that_is_known(name: str, half: float) -> None:
    assert peak_flops(name, "half") == half
    fp32, tf32 = peak_flops(name, "fp32"), peak_flops(name, "tf32")
    assert fp32 is not None
    assert fp32 < half
    assert tf32 == (fp32 if "V100" in name else half / 2)


@pytest.mark.parametrize(
    "name",
    ["cpu", "NVIDIA Z9", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "GRID A100-10C", "NVIDIA A16-8Q"],
)
def test_a_board_that_is_not_known_has_no_peak(name: str) -> None:
    assert peak_flops(name, "half") is None
