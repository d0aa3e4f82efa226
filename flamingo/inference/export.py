"""`mmdata export`: a trained model's weights for others, as a folder that is whole or not there.

```
FOLDER/
  checkpoint.pt       --format openflamingo: flat, its names, the LM's embedding matrices included
  model.safetensors   --format safetensors: ours; what it belongs to is in its header
  lm/                 --merge-lora: the whole LM with the adapters in it, as transformers writes it
  tokenizer/          its files, with the media tokens
  export.json         what it is: form, version, hashes; written last
```

`safetensors` is what training changed, copied: seconds, no model is loaded. Other forms are the
model family's, and load it.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flamingo.inference.export_options import Export, Format
from flamingo.models.family import ExportFormat, Family
from flamingo.models.registry import find_family
from flamingo.modules.adapter_settings import check_merge
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
    sync_tree,
    write_atomically,
)
from mmdata.training_view.tokenizer import load_tokenizer

EXPORTS = "exports"
MANIFEST = "export.json"
OWN_FORMAT = ExportFormat(
    WEIGHTS_FILE,
    "mmdata generate --checkpoint and mmdata train --init-from take it",
    holds_adapters=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written.

    Attributes:
        file: of the weights.
        folder: of the export.
        use: who takes the weights, for a person.
        num_tensors: in the file of weights.
        bytes: of all files.
    """

    file: str
    folder: str
    use: str
    num_tensors: int
    bytes: int


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
    family = find_family(trained.family)
    form = _form(options.format, family)
    header = read_header(trained.weights)
    check_merge(  # before anything large is read
        options.run,
        has_adapters=any(is_adapter(name) for name in header.shapes),
        merge=options.merge_lora,
        format=options.format,
        holds_adapters=form.holds_adapters,
    )
    trained = trained.moved(**options.places())
    with _folder_in_one(output, overwrite=options.overwrite) as draft:
        if options.format == "safetensors" and not options.merge_lora:
            copy_weights(trained, header, draft, offline=options.offline)
        else:
            model, tokenizer = build(trained, offline=options.offline)
            family.export(
                model,
                tokenizer,
                draft,
                format=options.format,
                merge=options.merge_lora,
                parts=trained.described(),
            )
        manifest = _write_manifest(draft, options.format)
    file = os.path.join(output, form.file)
    return ExportResult(
        file=file,
        folder=output,
        use=form.use,
        num_tensors=len(read_header(file).shapes),
        bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
    )


def copy_weights(
    trained: Trained, header: CheckpointHeader, folder: str, *, offline: bool = False
) -> None:
    """Our own form, as the checkpoint has it."""
    weights = read_weights(trained.weights)
    path = os.path.join(folder, WEIGHTS_FILE)
    write_weights(path, weights, header.record, trained.described())
    target = os.path.join(folder, TOKENIZER_FOLDER)
    if os.path.isdir(trained.tokenizer):
        shutil.copytree(trained.tokenizer, target)
    else:
        load_tokenizer(trained.tokenizer, local_files_only=offline).save_pretrained(target)


def summary(result: ExportResult) -> str:
    """What a person reads at the end."""
    return (
        f"{result.file}: {result.num_tensors:,} tensors, {result.bytes / 1e6:,.1f} MB with its "
        f"folder\n"
        f"{result.use}\n"
    )


def _form(format: Format, family: Family[Any]) -> ExportFormat:
    """Our own form, or one of the family's.

    Raises:
        UserError: it is neither.
    """
    forms = {"safetensors": OWN_FORMAT, **family.exports}
    if format not in forms:
        raise UserError(
            f"--format {format}: a model of the family {family.name} has none such; "
            f"expected {' or '.join(forms)}"
        )
    return forms[format]


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
        sync_tree(draft)
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
