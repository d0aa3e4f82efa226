"""Names and URLs to places: what is preferred among equals, and that none is made up."""

from mmdata.sources.name_index import NameIndex, stem_of


def index(*names: str, urls: dict[str, int] | None = None) -> NameIndex:
    found = NameIndex()
    for place, name in enumerate(names):
        found.add(name, place)
    for url, place in (urls or {}).items():
        found.add_url(url, place)
    found.finish()
    return found


def test_stems() -> None:
    assert [stem_of(n) for n in ("a/b.jpg", "b", "a/b.c.png", ".x", "a/")] == [
        "b", "b", "b.c", "", "",
    ]  # fmt: skip


def test_a_path_before_a_last_part_before_a_stem() -> None:
    found = index("x/a.png", "y/a.jpg", "a.jpg", "b.webp")
    assert found.find("y/a.jpg") == 1
    assert found.find("a.jpg") == 2
    assert found.find("z/a.png") == 0
    assert found.find("a.gif") == 0
    assert found.find("b") == 3
    assert found.find("c.jpg") is None
    assert found.find("") is None


def test_of_equal_names_the_first() -> None:
    assert index("a.jpg", "a.jpg").find("a.jpg") == 0


def test_a_url_before_a_name() -> None:
    found = index("0.jpg", "1.jpg", urls={"http://e/x.jpg": 1})
    assert found.find("0.jpg", "http://e/x.jpg") == 1
    assert found.find("0.jpg", "http://e/other.jpg") == 0
    assert found.has_urls
    assert not index("0.jpg").has_urls


def test_an_empty_index_finds_nothing() -> None:
    assert index().find("a.jpg", "http://e/a.jpg") is None


def test_many_names_are_all_found() -> None:
    names = [f"{k // 100:05d}/{k:09d}.jpg" for k in range(20_000)]
    found = index(*names)
    assert all(found.find(name) == place for place, name in enumerate(names))
    assert all(found.find(f"x{name}") is None for name in names[:500] if name.count("x"))
    assert found.find("99999999999.jpg") is None
