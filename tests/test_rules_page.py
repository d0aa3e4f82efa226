"""docs/rules.md says what the table of rules says."""

from tests.rules_page import PAGE, measured, table, with_block


def test_the_table_is_that_of_the_code() -> None:
    """`python -m tests.rules_page` rewrites it after a change that was meant."""
    page = PAGE.read_text(encoding="utf-8")
    assert with_block(page, "rules", table()) == page


def test_what_was_measured_is_said() -> None:
    share, positions = measured()
    assert 0.0 < share < 1.0
    assert positions >= 2000
