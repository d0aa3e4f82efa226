"""What convert-laion writes, in either layout, is a stream of captions by its manifest alone."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flamingo.data.stream import Stream
from mmdata.catalogue.shards import catalogue_stream
from mmdata.training_view.sequence import MediaTokenizer
from pipelines.laion.options import ConvertLaion
from pipelines.laion.run import convert_laion

from .conftest import colour_of, config_of, make_picture

PAIRS = 6


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_a_laion_conversion_is_read_as_captions(
    tmp_path: Path, tokenizer: MediaTokenizer, layout: str
) -> None:
    table = pa.table(
        {
            "image": [make_picture(k, 0) for k in range(PAIRS)],
            "caption": [f"This is picture {k}." for k in range(PAIRS)],
            "similarity": [0.01] * PAIRS,  # captions know no threshold
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    options = ConvertLaion(
        inputs=(str(tmp_path / "a.parquet"),),
        output=str(tmp_path / "out"),
        layout=layout,  # type: ignore[arg-type]
        fetcher="none",
        workers=0,
        docs_per_shard=2,
    )
    assert convert_laion(options, quiet=True).tally.images == PAIRS
    catalogue = catalogue_stream("laion", [str(tmp_path / "out")])
    assert (catalogue.num_samples, catalogue.kinds) == (PAIRS, {"laion"})
    stream = Stream(config_of(tmp_path / "out"), tokenizer, validation=True)
    assert stream.rule == "caption"
    batches = list(itertools.islice(stream.batches(), PAIRS))
    pictures = [tuple(i[:, 0, 0].tolist()) for batch in batches for i in batch.pixels]
    assert pictures == [colour_of(k, 0) for k in range(PAIRS)]
    texts = [
        tokenizer.decode(row[mask.bool()].tolist())
        for batch in batches
        for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    for number, text in enumerate(texts):
        assert f"<image>This is picture {number}.<|endofchunk|>" in text
