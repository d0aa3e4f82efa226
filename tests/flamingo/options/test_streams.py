"""Streams by name: from flags, from a file, with options of their own, mixed by shares."""

from pathlib import Path
from typing import Any

import pytest

from flamingo.models.flamingo.options import Train
from flamingo.options.streams import from_mapping, mix_of, training_streams, validation_streams
from mmdata.cli.config_file import read_config
from mmdata.errors import UserError


def options(**changes: Any) -> Train:
    return Train(**({"lm_path": "lm", "run_name": "run"} | changes))


def test_mmc4_and_laion_are_two_such() -> None:
    run = options(
        mmc4_shards="a",
        laion_shards="b",
        stream=("obelics=c", "obelics=d"),
        batch_size_mmc4=3,
        loss_multiplier_laion=0.2,
        train_num_samples_laion=70,
        mmc4_textsim_threshold=0.3,
    )
    mmc4, laion, obelics = training_streams(run)
    assert [one.name for one in (mmc4, laion, obelics)] == ["mmc4", "laion", "obelics"]
    assert (mmc4.config.shards, mmc4.config.batch_size) == (("a",), 3)
    assert (laion.loss_multiplier, laion.train_num_samples) == (0.2, 70)
    assert (laion.config.max_tokens, obelics.config.max_tokens) == (32, None)
    assert obelics.config.shards == ("c", "d")
    assert obelics.config.min_similarity == 0.3


def test_options_of_one_stream() -> None:
    changes = (
        "x.batch-size=16",
        "x.min_similarity=0.5",
        "x.rule=caption",
        "x.resampled=true",
        "x.lanes=4",
        "x.loss_multiplier=2",
    )
    x, y = training_streams(options(stream=("x=a", "y=b"), stream_opt=changes))
    assert (x.config.batch_size, x.config.min_similarity, x.config.rule) == (16, 0.5, "caption")
    assert (x.config.resampled, x.config.lanes, x.loss_multiplier) == (True, 4, 2.0)
    assert (y.config.batch_size, y.config.lanes, y.loss_multiplier) == (8, None, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream": ()}, "nothing to train on"),
        ({"stream": ("x",)}, "--stream x: expected name=SHARDS"),
        ({"stream": ("a.b=c",)}, "--stream a.b=c: expected name=SHARDS"),
        ({"stream_opt": ("y.lanes=2",)}, "--stream-opt y.lanes=2: no stream 'y'; there are x"),
        ({"stream_opt": ("x.lane=2",)}, "no option lane; did you mean lanes?"),
        ({"stream_opt": ("x.lanes=two",)}, "expected a whole number"),
        ({"stream_opt": ("x.rule=images",)}, "expected one of auto, interleaved, caption"),
        ({"stream_opt": ("x.random_flip=1",)}, "expected true or false"),
        ({"stream_opt": ("x=1",)}, "expected name.key=value"),
        ({"mmc4_shards": "a", "stream": ("mmc4=b",)}, "--mmc4-shards names the same stream"),
        ({"mix": "x=0.5,y=0.5"}, "expected a share for each of x"),
        ({"mix": "x=half"}, "expected name=share"),
        ({"batch_size": 4}, "--batch-size goes with --mix"),
    ],
)
def test_nonsense_gets_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        options(**({"stream": ("x=a",)} | change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_shares() -> None:
    run = options(stream=("a=1", "b=2"), mix="a=0.6, b=0.4")
    assert mix_of(run) == {"a": 0.6, "b": 0.4}


def test_validation_streams_take_options_too() -> None:
    run = options(stream=("x=a",), val_stream=("v=b",), stream_opt=("v.batch_size=2",))
    (one,) = validation_streams(run)
    assert (one.name, one.config.shards, one.config.batch_size) == ("v", ("b",), 2)


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "seed: 3\nstreams:\n  web: {shards: [a, b], batch-size: 16, random_flip: true}\n"
        "  pairs: c\n",
        encoding="utf-8",
    )
    found = read_config(str(path), Train)
    assert found == {
        "seed": 3,
        "stream": ("web=a", "web=b", "pairs=c"),
        "stream_opt": ("web.batch_size=16", "web.random_flip=true"),
    }
    web, pairs = training_streams(options(**found))
    assert (web.config.batch_size, web.config.random_flip, pairs.config.shards) == (
        16,
        True,
        ("c",),
    )


@pytest.mark.parametrize("streams", [["a"], {"web": {"batch_size": 2}}, {"web": 3}])
def test_a_file_that_makes_no_sense(streams: object) -> None:
    with pytest.raises(UserError, match="--config f: streams: "):
        from_mapping("f", streams)
