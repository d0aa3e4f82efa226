"""Nothing that comes from data becomes markup, whatever it is."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.html.markup import element, joined, raw, readable, shortened


class Seen(HTMLParser):
    """What a parser makes of a page: elements with attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "' onclick='alert(1)",
            "</p></style><svg/onload=alert(1)>",
            "<!--",
            "]]>",
            "&lt;b&gt; &amp;",
            "javascript:alert(1)",
        ]
    ),
)


@given(HOSTILE, HOSTILE)
def test_a_text_and_an_attribute_come_out_as_they_went_in(text: str, attribute: str) -> None:
    seen = Seen(element("p", text, title=attribute))
    assert seen.elements == [("p", {"title": readable(attribute)})]
    assert seen.text == readable(text)


@given(st.lists(HOSTILE))
def test_only_elements_that_were_asked_for_are_there(texts: list[str]) -> None:
    page = element("ul", [element("li", text) for text in texts])
    assert [tag for tag, _ in Seen(page).elements] == ["ul"] + ["li"] * len(texts)


@given(st.text())
def test_what_acts_on_a_reader_is_shown_as_an_escape(text: str) -> None:
    shown = readable(text)
    assert not set(shown) & set("\x00\x1b\x07\x7f\u202e\u2066\u200f\u2028\ufeff")
    assert shown.encode("utf-8").decode("utf-8") == shown  # no halves of surrogate pairs


def test_text_in_other_scripts_and_joined_emoji_stay() -> None:
    text = "\u0633\u0644\u0645 \U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e\nline\ttab"
    assert readable(text) == text
    assert readable("a\u202eb") == "a\\u202eb"


@pytest.mark.parametrize("name", ["onclick", "ONLOAD", "style", "srcdoc", "a b", 'x"y'])
def test_attributes_that_run_or_style_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        element("p", **{name: "1"})


def test_a_name_with_more_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="no name of an element"):
        element("p onclick=x")


def test_attributes_are_left_out_named_and_written_without_a_value() -> None:
    made = element("input", class_="a", data_x=1, hidden=True, value=None, checked=False)
    assert made == '<input class="a" data-x="1" hidden>'


def test_children_of_every_kind() -> None:
    assert joined(["<", 1, None, [element("b", 2.5)], iter("&")]) == "&lt;1<b>2.5</b>&amp;"


@pytest.mark.parametrize("content", ["a</script>b", "</SCRIPT >", "<!-- x"])
def test_a_script_that_would_end_itself_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="ends it"):
        raw("script", content)


@given(st.text(), st.integers(1, 20))
def test_shortened_text_has_the_length_that_was_asked_for(text: str, limit: int) -> None:
    cut = shortened(text, limit)
    assert len(cut) <= limit
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))
