"""The loader's profile times functions by the names under which the loader finds them."""

from benchmarks.loader import STAGES


def test_the_stages_of_the_profile_are_there() -> None:
    missing = [
        f"{module.__name__}.{name}" for module, name, _ in STAGES if not hasattr(module, name)
    ]
    assert missing == []
    assert len({label for _, _, label in STAGES}) == len(STAGES)
