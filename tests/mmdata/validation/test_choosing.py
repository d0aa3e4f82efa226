"""`--select` and `--ignore` choose rules by code or prefix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.validation.choosing import chosen_codes
from mmdata.validation.rules import RULES

PREFIXES = st.lists(
    st.sampled_from(sorted({code[:n] for code in RULES for n in range(1, len(code) + 1)})),
    max_size=4,
)


def test_all_rules_count_when_nothing_is_said() -> None:
    assert chosen_codes((), ()) == set(RULES)


def test_by_code_and_by_prefix() -> None:
    assert chosen_codes(("IMG002",), ()) == {"IMG002"}
    assert chosen_codes(("IMG002,SIM001", "KEY001"), ()) == {"IMG002", "SIM001", "KEY001"}
    assert chosen_codes(("TAR",), ()) == {code for code in RULES if code.startswith("TAR")}
    assert set(RULES) - chosen_codes((), ("tar",)) == chosen_codes(("TAR",), ())


def test_the_longer_prefix_decides() -> None:
    assert chosen_codes(("IMG002",), ("IMG",)) == {"IMG002"}
    assert "IMG002" not in chosen_codes(("IMG",), ("IMG002",))
    assert chosen_codes(("IMG",), ("IMG",)) == set()


@given(PREFIXES, PREFIXES)
def test_ignoring_more_never_brings_a_rule_back(select: list[str], ignore: list[str]) -> None:
    assert chosen_codes(select, [*ignore, "TAR001"]) <= chosen_codes(select, ignore)
    assert chosen_codes(select, ()) >= chosen_codes(select, ignore)


def test_a_code_of_no_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"--select TAR0O1: no rule .* did you mean TAR0"):
        chosen_codes(("TAR0O1",), ())
    with pytest.raises(UserError, match="--ignore : no rule has such a code"):
        chosen_codes((), ("",))
