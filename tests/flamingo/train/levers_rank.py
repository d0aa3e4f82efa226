"""What each of two ranks does for the tests of levers."""

from tests.flamingo.parallel.rank_case import Case, run_cases

from .eager import without_compiler


def run_levers(rank: int, size: int, folder: str, cases: list[Case]) -> None:
    """Be one rank; see `run_cases`."""
    with without_compiler():
        run_cases(rank, size, folder, cases)
