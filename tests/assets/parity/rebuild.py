"""Rebuilds the cut parity fixtures beside this file from the full ones, made by OpenFlamingo.

    python tests/assets/parity/rebuild.py REFERENCE_FOLDER

What the tests do not assert is left out, what they do is kept in fp32:

- pixels are not stored: they were drawn from seeds, and the tests draw them again;
- of logits and scores every 16th column of the vocabulary, and the last (our tokens);
- weights that both fixtures have in common (of the vision tower) stand in the OPT fixture alone.

Everything is xz-compressed safetensors, under 15 MB together. With MMDATA_PARITY pointing to the
reference folder the tests read that one instead.
"""

import json
import lzma
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

HERE = Path(__file__).parent
COLUMNS = 16
WHOLE = "opt_every2"
CUT = "gptneox_every1_openclip222"
META = "lm every media_token_id eoc_token_id pad_token_id vocab checkpoint_keys prompts train_steps"


def columns(logits: Tensor) -> Tensor:
    """Every 16th column and the last three, which are <|endofchunk|>, <image> and <PAD>."""
    last = logits.shape[-1]
    keep = sorted({*range(0, last, COLUMNS), last - 3, last - 2, last - 1})
    return logits[..., keep].contiguous()


def thin(name: str, value: Tensor) -> Tensor | None:
    """The part of one tensor of the reference that is kept."""
    if name.endswith(("vision_x", "pixels")):
        return None
    if name.endswith(("logits", "scores")):
        return columns(value)
    return value


def read(path: Path) -> dict[str, Tensor]:
    """A fixture's tensors, compressed or not."""
    if path.is_file():
        return load_file(path)
    return load(lzma.decompress(path.with_name(path.name + ".xz").read_bytes()))


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    packed = lzma.compress(save({k: v.contiguous() for k, v in tensors.items()}), preset=9)
    path.with_name(path.name + ".xz").write_bytes(packed)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A fixture's weights, with those that stand in the other fixture only."""
    weights = read(folder / "full_state_dict.safetensors")
    borrowed = json.loads((folder / "meta.json").read_text()).get("borrowed_weights", [])
    if borrowed:
        other = read(folder.parent / WHOLE / "full_state_dict.safetensors")
        weights |= {name: other[name] for name in borrowed}
    return weights


def cut_fixture(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    weights = read(source / "full_state_dict.safetensors")
    borrowed: list[str] = []
    if source.name == CUT:
        other = read(source.parent / WHOLE / "full_state_dict.safetensors")
        borrowed = [k for k in weights if k in other and torch.equal(weights[k], other[k])]
        weights = {k: v for k, v in weights.items() if k not in borrowed}
    write(target / "full_state_dict.safetensors", weights)
    for file in ("forward", "generate", "train_steps"):
        tensors = {
            name: kept
            for name, value in read(source / f"{file}.safetensors").items()
            if (kept := thin(name, value)) is not None
        }
        write(target / f"{file}.safetensors", tensors)
    meta = json.loads((source / "meta.json").read_text())
    kept_meta = {name: meta[name] for name in META.split()}
    kept_meta["borrowed_weights"] = borrowed
    for stream in ("mmc4", "laion"):
        kept_meta[f"{stream}.grad_norms"] = meta[f"{stream}.grad_norms"]
    (target / "meta.json").write_text(json.dumps(kept_meta, indent=1))


def main(reference: Path) -> None:
    for folder in ("gptneox", "llama", "opt", "tokenizer"):
        shutil.copytree(
            reference / "models" / folder,
            HERE / "models" / folder,
            dirs_exist_ok=True,
            copy_function=shutil.copyfile,
        )
    shutil.copyfile(reference / "models" / "tiny_vit.json", HERE / "models" / "tiny_vit.json")
    for name in (WHOLE, CUT):
        cut_fixture(reference / name, HERE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
