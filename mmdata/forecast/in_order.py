"""Samples as a reader makes them that goes through a tar in order, as webdataset does.

A sample ends where the key changes or a part repeats. In shards without faults that is one a key;
where members stand apart it is several, and each has less than the sample was meant to have.
"""

from collections.abc import Iterator, Mapping

from mmdata.forecast.shard import places_of_documents
from mmdata.shards.reader import refuse_damage, split_name
from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.storage.files import open_buffer, read_range


def read_in_order(path: str, rows: tuple[int, ...] | None) -> Iterator[Mapping[str, memoryview]]:
    """The members of samples by extension.

    Args:
        path: of the tar.
        rows: which samples, by their place; None: all.

    Raises:
        BadInputError: the tar is damaged.
    """
    places = places_of_documents(path) if rows is not None else None
    if rows is not None and places is not None:
        for row in rows:
            yield {"json": memoryview(read_range(path, *places[row]))}
        return

    def refuse(fault: Fault) -> None:
        if fault.damage != Damage.END_MARK:  # nobody but us minds
            refuse_damage(path, fault)

    with open_buffer(path) as data:
        samples = _samples(walk(data, refuse))
        wanted = range(len(samples)) if rows is None else rows
        for row in wanted:
            yield {
                kind: memoryview(data[one.offset : one.offset + one.size])
                for kind, one in samples[row].items()
            }


def _samples(members: Iterator[Member]) -> list[dict[str, Member]]:
    samples: list[dict[str, Member]] = []
    before = ""
    for member in members:
        key, extension = split_name(member.name)
        if not key:
            continue
        if key != before or extension in samples[-1]:
            samples.append({})
            before = key
        samples[-1][extension] = member
    return samples
