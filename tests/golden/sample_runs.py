"""The commands whose files are held byte by byte, run in this process on what the project bundles.

    prepare(folder)        inputs: examples/, a table with pictures, tars, damaged records
    run(folder, group)     exit codes, and the sha256 of every file that a group's commands write
    codecs()               versions of what decides bytes
    arithmetic(folder)     what this machine's floats come to (align's similarities)

Nothing of the project is imported but its command line, so that a move of modules changes no test.
"""

import contextlib
import gzip
import hashlib
import importlib
import io
import os
import platform
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "tests" / "assets"
STORED = Path(__file__).with_name("bytes.json")
#: A plan holds the time of each input; all have this one, in nanoseconds.
INPUT_TIME = 1_700_000_000_000_000_000

_MMC4 = ["convert-mmc4", "examples/mmc4", "--images", "examples/mmc4/images"]
_CUSTOM = ["convert-custom", "examples/conversations", "--image-root", "examples"]
_LAION = ["convert-laion", "--fetcher", "none"]

#: Commands by the name of the folder that each writes to, which is given as --output.
GROUPS: dict[str, dict[str, list[str]]] = {
    "convert-mmc4": {
        "plain": [*_MMC4, "--num-shards", "2", "--energon"],
        "small": [*_MMC4, "--docs-per-shard", "16", "--max-side", "64", "--image-format", "webp",
                  "--split", "train=0.7,val=0.3", "--min-images", "1", "--max-images", "4"],
        "unequal": [*_MMC4, "--dedupe", "exact", "--drop-duplicate-images",
                    "--split", "train=0.5,val=0.5", "--split-by", "url-host",
                    "--image-format", "jpeg", "--max-side", "96"],
        "hostile": ["convert-mmc4", "hostile_mmc4/*.zip", "--images", "hostile_mmc4/images",
                    "--skip-bad-inputs", "--keep-text-only"],
    },
    "convert-custom": {
        "plain": [*_CUSTOM, "--split", "train=0.7,val=0.3", "--energon"],
        "window": [*_CUSTOM, "--window", "full", "--max-side", "64", "--num-shards", "1"],
        "hidden": [*_CUSTOM, "--pseudonymise", "--pseudonym-key", "key.txt", "--dedupe", "exact"],
        "hostile": ["convert-custom", "hostile_conversations/*.json", "--image-root",
                    "hostile_conversations", "--skip-bad-inputs", "--on-missing", "drop-image"],
    },
    "convert-laion": {
        "table-pairs": [*_LAION, "pairs.parquet", "--layout", "pairs", "--docs-per-shard", "5"],
        "table-documents": [*_LAION, "pairs.parquet", "--docs-per-shard", "5", "--max-side", "64",
                            "--min-caption-similarity", "0.27"],
        "tar-pairs": [*_LAION, "foreign", "--layout", "pairs"],
        "tar-documents": [*_LAION, "foreign", "--energon"],
    },
    "repair": {
        "ours": ["repair", "damaged"],
        "pairs": ["repair", "damaged-pairs", "--energon"],
    },
    "index": {
        "indexed": ["index", "indexed"],
        "indexed-pairs": ["index", "indexed-pairs", "--energon"],
    },
    "align": {
        "aligned": ["align", "to-align", "--clip-model", "local-dir:clip", "--clip-device", "cpu"],
        "scored": [*_CUSTOM, "--clip-model", "local-dir:clip", "--clip-device", "cpu",
                   "--min-similarity", "0.1"],
    },
}  # fmt: skip


def prepare(folder: Path) -> None:
    """Lay out in a new folder what every command reads."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=_NOT_INPUTS)
    for kind in ("hostile_mmc4", "hostile_conversations"):
        shutil.copytree(ASSETS / kind, folder / kind)
    (folder / "foreign").mkdir()
    packed = ASSETS / "foreign_tars" / "img2dataset-pairs.tar.gz"
    (folder / "foreign" / "00000.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    (folder / "key.txt").write_text("0123456789abcdef0123456789abcdef\n")
    _write_table(folder / "pairs.parquet")
    for path in folder.rglob("*"):
        os.utime(path, ns=(INPUT_TIME, INPUT_TIME))


_NOT_INPUTS = shutil.ignore_patterns("*.py", "__pycache__", "recipes", "slurm")


def _write_table(path: Path) -> None:
    """Twelve pictures of the sample in a table, with a URL, a caption and a similarity each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = sorted((ROOT / "examples" / "mmc4" / "images" / "0").iterdir())[:12]
    rows = [
        {
            "url": f"https://example.org/{picture.name}",
            "caption": f"Picture {number}, ü.",
            "similarity": 0.25 + number / 128,
            "image": {"bytes": picture.read_bytes(), "path": None},
        }
        for number, picture in enumerate(pictures)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _damage_shards(folder: Path) -> None:
    """Shards of a conversion with a bit of a header flipped in one and the other cut off."""
    _convert(folder, "source", GROUPS["convert-mmc4"]["plain"])
    _convert(folder, "source-pairs", GROUPS["convert-laion"]["table-pairs"])
    for name, made in (("damaged", "source"), ("damaged-pairs", "source-pairs")):
        _copy_tars(folder / made, folder / name)
        first, second = sorted((folder / name).iterdir())[:2]
        data = bytearray(first.read_bytes())
        blocks = range(len(data) // 1024 * 512, len(data), 512)
        header = next(at for at in blocks if data[at + 257 :][:5] == b"ustar")
        data[header + 5] ^= 1
        first.write_bytes(data)
        second.write_bytes(second.read_bytes()[: second.stat().st_size * 2 // 3])


def _shards_of_others(folder: Path) -> None:
    """Tars without anything beside them."""
    _convert(folder, "source", GROUPS["convert-mmc4"]["plain"])
    _convert(folder, "source-pairs", GROUPS["convert-laion"]["table-pairs"])
    _copy_tars(folder / "source", folder / "indexed")
    _copy_tars(folder / "source-pairs", folder / "indexed-pairs")


def _shards_and_clip(folder: Path) -> None:
    """Shards of a conversion, and a tiny CLIP."""
    from tests.clip_factory import make_clip

    make_clip(folder / "clip")
    words = [*_MMC4, "--docs-per-shard", "16", "--max-side", "96"]
    _convert(folder, "to-align", words)


_BEFORE: dict[str, Callable[[Path], None]] = {
    "repair": _damage_shards,
    "index": _shards_of_others,
    "align": _shards_and_clip,
}


def _copy_tars(made: Path, folder: Path) -> None:
    folder.mkdir()
    for path in sorted(made.glob("*.tar")):
        shutil.copy(path, folder / path.name)


def _convert(folder: Path, output: str, words: list[str]) -> None:
    if code := call([*words, "--output", output, "--workers", "0"], folder):
        raise RuntimeError(f"{output}: exit code {code}")


def run(folder: Path, group: str) -> dict[str, Any]:
    """Run the commands of a group.

    Args:
        folder: that `prepare` has filled, and no other group was run in.
        group: one of GROUPS.

    Returns:
        by command `exit_code`, and `files`: each file's sha256 by its path below the output.
    """
    _BEFORE.get(group, lambda _: None)(folder)
    # The times of shards are in the plans of the commands that read them.
    for path in folder.rglob("*.tar"):
        os.utime(path, ns=(INPUT_TIME, INPUT_TIME))
    found = {}
    for name, words in GROUPS[group].items():
        in_place = words[0] == "index"
        output = [] if in_place else ["--output", f"out/{name}"]
        code = call([*words, *output, "--workers", "0"], folder)
        written = folder / name if in_place else folder / "out" / name
        found[name] = {"exit_code": code, "files": hashes(written, folder)}
    return found


def call(words: list[str], folder: Path) -> int:
    """Run a command of the project in a folder, silently; its exit code."""
    main = importlib.import_module("mmdata.cli.main").main
    said = io.StringIO()
    out, err = contextlib.redirect_stdout(said), contextlib.redirect_stderr(said)
    with contextlib.chdir(folder), out, err:
        code: int = main(words)
    if code not in (0, 1):
        raise RuntimeError(f"mmdata {' '.join(words)}: exit code {code}\n{said.getvalue()}")
    return code


def hashes(written: Path, folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path, hidden files among them.

    Of a plan the folder of the run is replaced first: it names its inputs by their whole paths.
    """
    found = {}
    for path in sorted(written.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "plan.json":
                data = data.replace(str(folder).encode(), b"FOLDER")
            found[path.relative_to(written).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def codecs() -> dict[str, str]:
    """Versions of what decides bytes: decoders, encoders, table format, compression, Python."""
    from PIL import features

    packages = ("msgspec", "numpy", "pillow", "pyarrow", "scipy", "simplejpeg")
    pillows = ("avif", "jpg", "jpg_2000", "libjpeg_turbo", "libtiff", "littlecms2", "webp", "zlib")
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "machine": platform.machine(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        **{name: version(name) for name in packages},
        **{f"pillow's {name}": str(features.version(name)) for name in pillows},
    }


def arithmetic(folder: Path) -> dict[str, str]:
    """What decides the similarities of `align`: versions, and what floats come to on this machine.

    CPUs of one capability round differently where their maker differs, so that the key holds what
    open_clip itself makes of noise and the tiny CLIP, to the last bit.
    """
    import open_clip
    import torch

    from tests.clip_factory import make_clip

    with one_thread(), torch.no_grad(), torch.random.fork_rng():
        model = open_clip.create_model(make_clip(folder / "probe"))
        torch.manual_seed(0)
        pictures = model.encode_image(torch.randn(32, 3, 32, 32), normalize=True)
        texts = model.encode_text(torch.randint(0, 49408, (32, 77)), normalize=True)
        product = (pictures @ texts.T).contiguous()
    return {
        **{name: version(name) for name in ("torch", "torchvision", "open_clip_torch")},
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "similarities of noise": hashlib.sha256(product.numpy().tobytes()).hexdigest()[:16],
    }


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch count on one thread meanwhile: sums of several are in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differences(stored: dict[str, str], here: dict[str, str]) -> str:
    """Where two keys differ, in words; empty where they do not."""
    return ", ".join(
        f"{name} {here.get(name, 'missing')} instead of {stored.get(name, 'none')}"
        for name in sorted(stored.keys() | here.keys())
        if stored.get(name) != here.get(name)
    )
