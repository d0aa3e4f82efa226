"""Sums of tallies."""

from schemas.manifest import Tally


def test_tallies_add_up_reason_by_reason() -> None:
    total = Tally()
    total.add(Tally(records=3, documents=2, documents_dropped={"no-text": 1}))
    total.add(Tally(records=2, images=5, documents_dropped={"no-text": 1, "bad-json": 1}))
    assert (total.records, total.documents, total.images) == (5, 2, 5)
    assert total.documents_dropped == {"bad-json": 1, "no-text": 2}
    assert list(total.documents_dropped) == ["bad-json", "no-text"]
    assert Tally().documents_dropped == {}
