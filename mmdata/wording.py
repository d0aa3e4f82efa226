"""How numbers of things are said, in messages, tables and pages alike."""


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 image, 2 images, 1,000 images; `many` where it is not the one with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
