"""Templates put words around turns, by role."""

import pytest

from mmdata.sources.conversations.roles import canonical, is_answer, parse_template, render


def test_a_template_is_cut_at_its_fields() -> None:
    template = "Question: {human} Answer: {gpt}"
    assert render(["a?", "b.", "c?"], ["human", "gpt", "user"], template) == [
        "Question: a?",
        "Answer: b.",
        "Question: c?",
    ]


def test_words_behind_the_last_field_follow_its_turns() -> None:
    assert render(["q", "a"], ["user", "assistant"], "<{human}>{gpt}!") == ["<q", ">a!"]


def test_a_role_that_the_template_lacks_stays_as_it_is() -> None:
    assert render(["Be brief."], ["system"], "Q: {human}") == ["Be brief."]


@pytest.mark.parametrize("template", ["", "Question: Answer:", "{human} {user}"])
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(ValueError, match=r"field|twice"):
        parse_template(template)


def test_names_of_roles() -> None:
    assert canonical("Assistant") == "gpt"
    assert canonical("narrator") == "narrator"
    assert is_answer("model")
    assert not is_answer("user")
