"""`mmdata export`: a trained model's weights for others, as a folder that is whole or not there.

```
FOLDER/
  checkpoint.pt       --format openflamingo: flat, its names, the LM's embedding matrices included
  model.safetensors   --format safetensors: ours; what it belongs to is in its header
  lm/                 --merge-lora: the whole LM with the adapters in it, as transformers writes it
  tokenizer/          its files, with the media tokens
  export.json         what it is: step, parts, fit, hashes; written last
```

`safetensors` is what training changed, copied: seconds, no LM is loaded. `openflamingo` needs the
LM, since the media-token rows lie inside its matrices there, and writes as many bytes more.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import PretrainedConfig

from flamingo.inference.export_options import Export, Format
from flamingo.models.flamingo.checkpoint import export_openflamingo, is_ours, trainable_state_dict
from flamingo.models.flamingo.compat import describe
from flamingo.models.flamingo.merge import merge_adapters, save_language_model
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.adapters import has_adapters
from flamingo.modules.checkpoint_files import (
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    CheckpointHeader,
    read_header,
    read_weights,
    write_weights,
)
from flamingo.modules.freezing import is_adapter
from flamingo.modules.hub import quiet_loading
from flamingo.train.checkpoint.checkpoint import FOLDER
from flamingo.train.checkpoint.trained import Trained, build, find_trained
from mmdata import __version__
from mmdata.errors import UserError
from mmdata.storage.atomic import (
    give_usual_modes,
    sha256_of,
    sync_folder,
    write_atomically,
)
from mmdata.training_view.tokenizer import load_tokenizer

EXPORTS = "exports"
OPENFLAMINGO_FILE = "checkpoint.pt"
LM_FOLDER = "lm"
MANIFEST = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written.

    Attributes:
        folder: of the export.
        format: of the weights.
        num_tensors: in the file of weights.
        bytes: of all files.
        merged: adapters that are in the LM now.
    """

    folder: str
    format: Format
    num_tensors: int
    bytes: int
    merged: int = 0


def export(options: Export) -> ExportResult:
    """Write the weights that the options name.

    Raises:
        UserError: no checkpoint there, the folder is taken, or parts do not fit.
    """
    quiet_loading()
    trained = find_trained(options.run, step=options.step, best=options.checkpoint == "best")
    if trained is None:
        raise UserError(f"{options.run}: holds no checkpoint of ours")
    output = options.output or _default_output(trained, options.format)
    _check_free(output, overwrite=options.overwrite)
    header = read_header(trained.weights)
    adapters = any(is_adapter(name) for name in header.shapes)
    _check_adapters(options, adapters=adapters)
    trained = trained.moved(
        lm_path=options.lm_path,
        vision_encoder_path=options.vision_encoder_path,
        vision_encoder_pretrained=options.vision_encoder_pretrained,
    )
    with _folder_in_one(output, overwrite=options.overwrite) as draft:
        if options.format == "safetensors" and not options.merge_lora:
            copy_weights(trained, header, draft, offline=options.offline)
        else:
            model, _, tokenizer = build(trained, offline=options.offline)
            write_model(
                model, tokenizer, trained, draft, format=options.format, merge=options.merge_lora
            )
        manifest = _write_manifest(draft, options.format)
    return ExportResult(
        folder=output,
        format=options.format,
        num_tensors=len(read_header(_weights_file(output, options.format)).shapes),
        bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
    )


def copy_weights(
    trained: Trained, header: CheckpointHeader, folder: str, *, offline: bool = False
) -> None:
    """Our own form, as the checkpoint has it."""
    weights = read_weights(trained.weights)
    path = os.path.join(folder, WEIGHTS_FILE)
    write_weights(path, weights, header.record, trained.parts())
    target = os.path.join(folder, TOKENIZER_FOLDER)
    if os.path.isdir(trained.tokenizer):
        shutil.copytree(trained.tokenizer, target)
    else:
        load_tokenizer(trained.tokenizer, local_files_only=offline).save_pretrained(target)


def write_model(
    model: Flamingo,
    tokenizer: Any,
    trained: Trained,
    folder: str,
    *,
    format: Format,
    merge: bool = False,
) -> int:
    """Write a model in either form; returns the number of adapters merged.

    With `merge` the LM is written too; the model is taken apart for it and of no use afterwards.

    Raises:
        UserError: `merge` without adapters, or adapters where the form has no place for them.
    """
    adapters = has_adapters(model.lang_encoder)
    if merge and not adapters:
        raise UserError("--merge-lora: this run has no LoRA adapters; leave it out")
    if adapters and not merge and format == "openflamingo":
        raise UserError(_NEEDS_MERGE)
    merged = merge_adapters(model.lang_encoder) if merge else 0
    tokenizer.save_pretrained(os.path.join(folder, TOKENIZER_FOLDER))
    if format == "openflamingo":
        torch.save(export_openflamingo(model), os.path.join(folder, OPENFLAMINGO_FILE))
    weights = {name: value.clone() for name, value in trainable_state_dict(model).items()}
    record = model.fit.record() if model.fit else None
    if merge:
        lm_folder = os.path.join(folder, LM_FOLDER)
        save_language_model(model, lm_folder)
        tokenizer.save_pretrained(lm_folder)
        trained = trained.moved(lm_path=f"./{LM_FOLDER}")
        record = describe(
            cast(PretrainedConfig, model.lang_encoder.config),
            tokenizer,
            vision_width=model.vis_dim,
            cross_attn_every_n_layers=model.cross_attn_every_n_layers,
            lm_path=lm_folder,
        ).record()
        weights = {name: value for name, value in weights.items() if is_ours(name)}
    if format == "safetensors":
        write_weights(os.path.join(folder, WEIGHTS_FILE), weights, record, trained.parts())
    return merged


def summary(result: ExportResult) -> str:
    """What a person reads at the end."""
    file = _weights_file(result.folder, result.format)
    use = {
        "openflamingo": "OpenFlamingo's evaluation loads it; so does --init-from",
        "safetensors": "mmdata generate --checkpoint and mmdata train --init-from take it",
    }[result.format]
    return (
        f"{file}: {result.num_tensors:,} tensors, {result.bytes / 1e6:,.1f} MB with its folder\n"
        f"{use}\n"
    )


_NEEDS_MERGE = (
    "--format openflamingo: has no place for LoRA adapters; --merge-lora puts them into the "
    "language model, and --format safetensors keeps them"
)


def _check_adapters(options: Export, *, adapters: bool) -> None:
    """Refuse adapters that the format cannot hold, before anything large is read."""
    if options.merge_lora and not adapters:
        raise UserError(f"--merge-lora: {options.run} has no LoRA adapters; leave it out")
    if adapters and not options.merge_lora and options.format == "openflamingo":
        raise UserError(_NEEDS_MERGE)


def _weights_file(folder: str, format: Format) -> str:
    return os.path.join(folder, OPENFLAMINGO_FILE if format == "openflamingo" else WEIGHTS_FILE)


def _default_output(trained: Trained, format: Format) -> str:
    checkpoints = os.path.dirname(os.path.abspath(trained.weights))
    if os.path.basename(checkpoints) != FOLDER:
        raise UserError("--output: give a folder, since this checkpoint lies in no run's")
    return os.path.join(os.path.dirname(checkpoints), EXPORTS, f"{format}-step-{trained.step:08d}")


def _check_free(output: str, *, overwrite: bool) -> None:
    if output.endswith((".pt", ".safetensors")):
        raise UserError(f"--output {output}: expected a folder; the file in it has a fixed name")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UserError(f"{output}: is there already; --overwrite replaces it")
    if not os.path.isfile(os.path.join(output, MANIFEST)):
        raise UserError(f"{output}: is no export of ours, and is not overwritten")


@contextmanager
def _folder_in_one(output: str, *, overwrite: bool) -> Iterator[str]:
    """A folder to write into that becomes `output` when the block ends, or is removed."""
    parent = os.path.dirname(os.path.abspath(output))
    os.makedirs(parent, exist_ok=True)
    mark = uuid.uuid4().hex
    draft = os.path.join(parent, f".{os.path.basename(output)}.{mark}.tmp")
    os.mkdir(draft)
    try:
        yield draft
        give_usual_modes(draft)
        _sync_tree(draft)
        _check_free(output, overwrite=overwrite)  # it took a while
        old = None
        if os.path.lexists(output):
            old = os.path.join(parent, f".{os.path.basename(output)}.{mark}.old.tmp")
            os.rename(output, old)
        os.rename(draft, output)
        sync_folder(parent)
        if old is not None:
            shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _sync_tree(folder: str) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(parent)


def _write_manifest(folder: str, format: Format) -> dict[str, Any]:
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            entry = {"bytes": os.path.getsize(path), "sha256": sha256_of(path)}
            files[os.path.relpath(path, folder)] = entry
    manifest = {"format": format, "mmdata": __version__, "files": dict(sorted(files.items()))}
    text = json.dumps(manifest, indent=1) + "\n"
    write_atomically(os.path.join(folder, MANIFEST), text.encode())
    return manifest
