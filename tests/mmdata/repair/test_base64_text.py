"""Base64 with the faults that people's scripts put into it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.images import ImageRejected
from mmdata.repair.base64_text import mend_base64

DATA = bytes(range(256)) * 2
PLAIN = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (PLAIN, []),
        (str(PLAIN.encode()), ["b'…' taken off"]),
        (f'b"{PLAIN}"', ["b'…' taken off"]),
        (f"data:image/jpeg;base64,{PLAIN}", ["data: URI taken off"]),
        (f"DATA:image/png;charset=x;base64,{PLAIN}", ["data: URI taken off"]),
        (base64.encodebytes(DATA).decode(), ["line breaks or spaces taken out"]),
        (PLAIN[:76] + "\\n" + PLAIN[76:], ["line breaks or spaces taken out"]),
        (PLAIN.rstrip("="), ["padding corrected"]),
        (PLAIN + "====", ["padding corrected"]),
        (
            base64.urlsafe_b64encode(DATA).decode(),
            ["URL alphabet made the standard one"],
        ),
        (
            f"b'data:image/png;base64,{PLAIN}'",
            ["b'…' taken off", "data: URI taken off"],
        ),
    ],
)
def test_what_was_meant_is_read(text: str, mended: list[str]) -> None:
    assert mend_base64(text) == (DATA, mended)


def test_stray_bits_behind_the_last_byte() -> None:
    assert mend_base64("QQ==") == (b"A", [])
    assert mend_base64("QR==") == (b"A", ["stray bits behind the last byte taken off"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!!!", "not base64: character '!' at 0"),
        ("QUJDR", "not base64: it ends in the middle of a byte, after 5 characters"),
        ("QUJDé", "not base64: it ends in the middle of a byte, after 5 characters"),
        ("QUéD", r"not base64: character '\xe9' at 2"),
        ("QQ=Q", "not base64: Non-base64 digit found"),
    ],
)
def test_what_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(ImageRejected) as error:
        mend_base64(text)
    assert (error.value.reason, error.value.detail) == ("unreadable", why)


@given(st.binary(max_size=200), st.integers(1, 80), st.booleans(), st.booleans())
def test_any_bytes_come_back_through_any_of_it(
    data: bytes, width: int, literal: bool, stripped: bool
) -> None:
    text = base64.b64encode(data).decode()
    text = text.rstrip("=") if stripped else text
    text = "\n".join(text[at : at + width] for at in range(0, len(text), width))
    assert mend_base64(f"b'{text}'" if literal else text)[0] == data


@given(st.text(max_size=60))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    try:
        data, _ = mend_base64(text)
    except ImageRejected:
        return
    assert isinstance(data, bytes)
