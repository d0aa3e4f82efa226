"""convert-mmc4 with images that are not in a plain folder, and with images made smaller."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmdata.errors import BadInputError, UserError
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import (
    Corpus,
    documents_of,
    image_bytes,
    make_corpus,
    manifest_of,
    run_cli,
    snapshot,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "in", records=12, files=2)


def as_tars(corpus: Corpus, folder: Path) -> Path:
    """The corpus's images, one tar a shard."""
    folder.mkdir()
    for shard in sorted(os.listdir(corpus.images)):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            archive.add(Path(corpus.images) / shard, arcname=shard)
    return folder


def as_parquet(corpus: Corpus, folder: Path) -> Path:
    folder.mkdir()
    files = sorted(Path(corpus.images).rglob("*.jpg"))
    rows = {"image_name": [f.name for f in files], "bytes": [f.read_bytes() for f in files]}
    pq.write_table(pa.table(rows), folder / "images.parquet", row_group_size=5)
    return folder


@pytest.mark.parametrize("store", [as_tars, as_parquet])
def test_where_images_come_from_makes_no_difference(
    store: Callable[[Corpus, Path], Path], corpus: Corpus, tmp_path: Path
) -> None:
    """The text of a missing image is another, and nothing else."""
    folder = store(corpus, tmp_path / "images")
    convert_mmc4(corpus.options(tmp_path / "plain"), quiet=True)
    result = convert_mmc4(corpus.options(tmp_path / "out", images=str(folder)), quiet=True)
    assert result.tally.images > 0
    for path in (tmp_path / "plain").glob("*.tar"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.ray
def test_workers_make_no_difference_to_images_from_tars(corpus: Corpus, tmp_path: Path) -> None:
    folder = str(as_tars(corpus, tmp_path / "images"))
    convert_mmc4(corpus.options(tmp_path / "w0", images=folder), quiet=True)
    command = Corpus(corpus.docs, folder, corpus.num_records).command(
        tmp_path / "w2", "--workers", "2"
    )
    assert run_cli(command).returncode == 0
    assert snapshot(tmp_path / "w2") == snapshot(tmp_path / "w0")


def test_the_plan_names_what_was_found(corpus: Corpus, tmp_path: Path) -> None:
    folder = as_tars(corpus, tmp_path / "images")
    done = run_cli(Corpus(corpus.docs, str(folder), 12).command(tmp_path / "out", "--dry-run"))
    assert "0.tar and 1 more (22 images in tars, by name)" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_damaged_tar_of_images_is_a_bad_input(corpus: Corpus, tmp_path: Path) -> None:
    folder = as_tars(corpus, tmp_path / "images")
    path = folder / "1.tar"
    path.write_bytes(path.read_bytes()[:9000])
    options = corpus.options(tmp_path / "out", images=str(folder), skip_bad_inputs=False)
    with pytest.raises(BadInputError, match=r"1\.tar: damaged tar at byte"):
        convert_mmc4(options, quiet=True)
    assert not (tmp_path / "out").exists()
    done = run_cli(
        Corpus(corpus.docs[:1], str(folder), 6).command(tmp_path / "out", "--skip-bad-inputs")
    )
    assert done.returncode == 0, done.stderr
    assert "left out: 1.tar: damaged tar" in done.stdout
    assert [one["file"] for one in manifest_of(tmp_path / "out")["excluded_inputs"]] == ["1.tar"]


def test_image_path_is_of_folders(corpus: Corpus, tmp_path: Path) -> None:
    folder = as_tars(corpus, tmp_path / "images")
    options = corpus.options(tmp_path / "out", images=str(folder), image_path="{root}/{image_name}")
    with pytest.raises(UserError, match="--image-path: is of folders"):
        convert_mmc4(options, quiet=True)


# --- sizes and formats


def test_images_are_made_smaller_in_the_shards(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = corpus.options(output, max_side=24, image_format="webp", quality=80)
    tally = convert_mmc4(options, quiet=True).tally
    infos = [info for d in documents_of(output).values() for info in d["image_info"]]
    assert tally.images_reencoded == len(infos) > 0
    for info in infos:
        image = Image.open(io.BytesIO(image_bytes(info)))
        assert image.format == "WEBP"
        assert image.size == (info["width"], info["height"]) == (24, 18)
    assert validate(Validate(shards=(str(output),), workers=0)).exit_code == 0


def test_options_of_images_are_part_of_the_fingerprint(corpus: Corpus, tmp_path: Path) -> None:
    convert_mmc4(corpus.options(tmp_path / "out", max_side=24), quiet=True)
    for more in ({"max_side": 25}, {"resize_mode": "shortest"}, {"quality": 9}, {"max_side": None}):
        options = corpus.options(tmp_path / "out", **({"max_side": 24} | more))
        with pytest.raises(UserError, match="holds another conversion"):
            convert_mmc4(options, quiet=True)
