"""The tar dialect of our shards: plain ustar, one regular file a member, nothing that varies.

POSIX.1-1988 ustar (pax(1), "ustar Interchange Format"). Every field but name, size and checksum is
a constant (mode 644, ids 0, time 0, no owner names), so that a header is a pure function of
(name, size) and a validator can rebuild it byte for byte. Equal to what Python's
`tarfile.TarInfo.tobuf(USTAR_FORMAT)` writes for such a file, at a tenth of its cost.
"""

BLOCK_BYTES = 512
#: End of archive: two zero blocks. Python's tarfile pads to 10,240 bytes besides; we do not.
END_MARK = bytes(2 * BLOCK_BYTES)
#: The size field holds 11 octal digits.
MAX_MEMBER_BYTES = 8**11 - 1
MAX_NAME_BYTES = 100

_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2
_AFTER_CHECKSUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(64 + 16 + 155 + 12)
_CONSTANT_SUM = sum(_BEFORE_SIZE) + sum(b"00000000000\0") + sum(b" " * 8) + sum(_AFTER_CHECKSUM)


def member_header(name: str, size: int) -> bytes:
    """The 512-byte header of a regular file.

    Raises:
        ValueError: the name is not ASCII or longer than 100 bytes, or the size needs more than
            11 octal digits (8 GiB).
    """
    raw = name.encode("ascii")
    if not 0 < len(raw) <= MAX_NAME_BYTES:
        raise ValueError(f"member name of {len(raw)} bytes: expected 1 to {MAX_NAME_BYTES}")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"member of {size} bytes: expected at most {MAX_MEMBER_BYTES}")
    digits = b"%011o\0" % size
    checksum = _CONSTANT_SUM + sum(raw) + sum(digits)
    return b"".join(
        (
            raw.ljust(100, b"\0"),
            _BEFORE_SIZE,
            digits,
            b"00000000000\0",
            b"%06o\0 " % checksum,
            _AFTER_CHECKSUM,
        )
    )


def is_our_header(block: bytes, name: str, size: int) -> bool:
    """Whether a block is `member_header`'s for this name and size."""
    try:
        return block == member_header(name, size)
    except ValueError:
        return False


def padding(size: int) -> bytes:
    """The zero bytes that fill a member's data to a whole number of blocks."""
    return bytes(-size % BLOCK_BYTES)
