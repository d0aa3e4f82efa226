"""Names and URLs to places: exactly those that were added, and what is near to one."""

from mmdata.sources.name_index import NameIndex
from mmdata.sources.names import Near


def index(*names: str, urls: dict[str, int] | None = None, most_ends: int = 1000) -> NameIndex:
    found = NameIndex(most_ends)
    for place, name in enumerate(names):
        found.add(name, place)
    for url, place in (urls or {}).items():
        found.add_url(url, place)
    found.finish()
    return found


def test_an_exact_name_has_the_places_that_it_was_added_with() -> None:
    found = index("x/a.png", "y/a.jpg", "a.jpg", "b.webp", "a.jpg", "é\udcff.jpg")
    assert found.exact("y/a.jpg") == [1]
    assert found.exact("a.jpg") == [2, 4]
    assert found.exact("é\udcff.jpg") == [5]
    assert found.exact("z/a.png") == []
    assert found.exact("") == []


def test_the_nearest_come_alone() -> None:
    found = index("x/a.png", "y/a.jpg", "y/z/a.jpg", "b.webp")
    assert found.near("y/a.JPG") == [Near("y/a.jpg", 0)]
    assert found.near("z/a.jpg") == [Near("y/z/a.jpg", 1)]
    assert found.near("z/a.gif") == [Near("y/z/a.jpg", 2)]
    assert {near.name for near in found.near("a.jpg")} == {"y/a.jpg", "y/z/a.jpg"}
    assert found.near("b") == [Near("b.webp", 1)]
    assert found.near("c.jpg") == []


def test_of_many_that_are_equally_near_a_few_are_told() -> None:
    assert len(index(*(f"{k}/a.jpg" for k in range(100))).near("a.jpg")) == 3


def test_of_too_many_names_only_the_exact_ones_are_found() -> None:
    found = index("a/b/1.jpg", "a/b/2.jpg", most_ends=5)
    assert (found.near("1.jpg"), found.too_large) == ([], True)
    assert found.exact("a/b/1.jpg") == [0]
    whole = index("a/b/1.jpg", "a/b/2.jpg", most_ends=6)
    assert (whole.near("1.jpg"), whole.too_large) == ([Near("a/b/1.jpg", 1)], False)


def test_a_url_has_the_place_of_the_first_that_came_from_it() -> None:
    found = index("0.jpg", "1.jpg", urls={"http://e/x.jpg": 1})
    assert found.of_url("http://e/x.jpg") == 1
    assert found.of_url("http://e/other.jpg") is None
    assert found.has_urls
    assert not index("0.jpg").has_urls


def test_an_empty_index_finds_nothing() -> None:
    assert (index().exact("a.jpg"), index().near("a.jpg")) == ([], [])
    assert index().of_url("http://e/a.jpg") is None


def test_many_names_are_all_found() -> None:
    names = [f"{k // 100:05d}/{k:09d}.jpg" for k in range(20_000)]
    found = index(*names, most_ends=100_000)
    assert all(found.exact(name) == [place] for place, name in enumerate(names))
    assert all(found.near(name[6:-4]) == [Near(name, 2)] for name in names[:500])
    assert found.near("99999999999.jpg") == []
