"""Other people's readers take our shards as they are: webdataset, datasets (HF), Energon."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmdata.shards.reader import ShardReader
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from pipelines.repair.index import index
from pipelines.repair.options import Index
from tests.shard_factory import make_pairs

ROOT = Path(__file__).resolve().parents[2]
# What these libraries warn of in themselves is not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interop") / "shards"
    sample = ROOT / "examples" / "mmc4"
    options = ConvertMmc4(
        docs=(str(sample),),
        images=str(sample / "images"),
        output=str(folder),
        num_shards=4,
        workers=0,
        energon=True,
    )
    assert convert_mmc4(options, quiet=True).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def expected(shards: Path) -> dict[str, Any]:
    """Every document by its key, by our own reader."""
    documents = {}
    for path in sorted(shards.glob("*.tar")):
        with ShardReader(str(path)) as reader:
            for sample in reader:
                documents[sample.key] = msgspec.json.decode(bytes(sample.members["json"]))
    assert len(documents) == 47
    return documents


def test_webdataset(shards: Path, expected: dict[str, Any]) -> None:
    import webdataset

    pattern = str(shards / "{000000000..000000003}.tar")
    dataset = webdataset.WebDataset(pattern, shardshuffle=False).decode()
    assert {sample["__key__"]: sample["json"] for sample in dataset} == expected


def test_huggingface_datasets(shards: Path, expected: dict[str, Any]) -> None:
    import datasets

    dataset = datasets.load_dataset(
        "webdataset",
        data_files={"train": str(shards / "*.tar")},
        split="train",
        streaming=True,
    )
    read = {sample["__key__"]: sample["json"] for sample in dataset}
    assert read.keys() == expected.keys()
    for key, document in read.items():
        assert document["text_list"] == expected[key]["text_list"]
        images = [image["image_base64"] for image in document["image_info"]]
        assert images == [image["image_base64"] for image in expected[key]["image_info"]]


def test_energon(shards: Path, expected: dict[str, Any]) -> None:
    """Through the index that was written along with the shards; nothing else prepares them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_with_energon(shards) == expected


def test_energons_own_index_is_the_same(shards: Path, tmp_path: Path) -> None:
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    names = sorted(path.name for path in shards.glob("*.tar"))
    for name in names:
        shutil.copy(shards / name, tmp_path)
    WebdatasetPreparator.prepare_dataset(
        EPath(tmp_path), names, split_parts_ratio=[("train", 1.0)], workers=1
    )
    for name in names:
        assert (shards / f"{name}.idx").read_bytes() == (tmp_path / f"{name}.idx").read_bytes()
    info = Path(".nv-meta") / ".info.json"
    ours, theirs = (json.loads((folder / info).read_text()) for folder in (shards, tmp_path))
    assert ours == theirs  # its version too: raise PREPARED_AS when the pin is raised


def read_with_energon(shards: Path, member: str = "json") -> dict[str, Any]:
    """A member of every sample of the train split, through Energon's loader."""
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_loader,
        get_val_dataset,
        stateless,
    )

    class Encoder(DefaultTaskEncoder):
        cookers = [Cooker(stateless(as_is))]  # noqa: RUF012

        def batch(self, samples: list[Any]) -> list[Any]:
            return samples

    workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_val_dataset(
        str(shards), split_part="train", worker_config=workers, batch_size=1, task_encoder=Encoder()
    )
    load: Callable[[Any], Any] = get_loader
    return {
        sample["__key__"].rpartition("/")[2]: sample[member]
        for batch in load(dataset)
        for sample in batch
    }


def as_is(sample: Any) -> Any:
    """A sample of Energon's own, uncooked."""
    return sample


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """img2dataset's layout, made by others and indexed."""
    folder = tmp_path_factory.mktemp("others") / "pairs"
    make_pairs(folder)
    assert index(Index(shards=(str(folder),), energon=True, workers=0)).exit_code == 0
    return folder


class TestPairs:
    def test_energon(self, others: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            texts = read_with_energon(others, "txt")
        assert texts == {f"{n:09d}": f"caption {n}" for n in range(3)}

    def test_huggingface_datasets(self, others: Path) -> None:
        import datasets

        dataset = datasets.load_dataset(
            "webdataset",
            data_files={"train": str(others / "*.tar")},
            split="train",
            streaming=True,
        )
        assert [row["txt"] for row in dataset] == [f"caption {n}" for n in range(3)]
        assert all(row["jpg"].size == (24, 16) for row in dataset)
