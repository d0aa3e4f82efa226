"""Other people's readers take our shards as they are: webdataset, datasets (HF), Energon."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmdata.shards.reader import ShardReader
from pipelines.config import ConvertMmc4
from pipelines.convert_mmc4 import convert_mmc4

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = read_with_energon(shards)
    assert read == expected


def read_with_energon(shards: Path) -> dict[str, Any]:
    """Prepare the folder as `energon prepare` does, and read it through Energon's loader."""
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_loader,
        get_val_dataset,
        stateless,
    )
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    class Encoder(DefaultTaskEncoder):
        cookers = [Cooker(stateless(as_is))]  # noqa: RUF012

        def batch(self, samples: list[Any]) -> list[Any]:
            return samples

    names = sorted(path.name for path in shards.glob("*.tar"))
    WebdatasetPreparator.prepare_dataset(
        EPath(shards), names, split_parts_ratio=[("val", 1.0)], workers=1
    )
    config = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
    (shards / ".nv-meta" / "dataset.yaml").write_text(config)
    workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_val_dataset(
        str(shards), split_part="val", worker_config=workers, batch_size=1, task_encoder=Encoder()
    )
    load: Callable[[Any], Any] = get_loader
    return {
        sample["__key__"].rpartition("/")[2]: sample["json"]
        for batch in load(dataset)
        for sample in batch
    }


def as_is(sample: Any) -> Any:
    """A sample of Energon's own, uncooked."""
    return sample
