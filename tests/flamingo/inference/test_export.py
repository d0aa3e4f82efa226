"""`mmdata export`: a run's weights for others, and back."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from flamingo.inference.export import _folder_in_one, export, summary
from flamingo.inference.export_options import Export
from flamingo.launch.run import train
from flamingo.models.flamingo.export import export_model
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_header
from flamingo.train.checkpoint.trained import Trained, build, find_trained
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_hub import TOKENIZER, save_clip, save_lm
from tests.flamingo.models.flamingo.tiny_lms import make_lm, open_gates, wrap


def logits(model: Flamingo) -> torch.Tensor:
    end, image = model.media_tokens.token_ids
    ids = torch.tensor([[image, 5, 6, end, image, 7, 8]])
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        result: torch.Tensor = model(ids, images=images, images_per_sample=[2]).logits
    return result


def from_weights(trained: Trained, weights: Path) -> Flamingo:
    return build(dataclasses.replace(trained, weights=str(weights)), offline=True)[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "gptneox"])  # tied and untied
def test_what_was_trained_comes_back_bit_for_bit(
    family: str,
    run_options: Callable[..., Train],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lm = save_lm(tmp_path / "lm", family)
    run = run_options("run", lm_path=lm, tokenizer_path=TOKENIZER, max_steps=2, learning_rate=0.1)
    train(run)
    trained = find_trained(run.run_name)
    assert trained is not None
    model = build(trained, offline=True)[0]
    assert model.cross_attention_blocks[0].attn_gate.abs() > 0.01
    expected = logits(model)

    peer = export(Export(run=run.run_name, format="openflamingo", offline=True))
    assert peer.folder == f"{run.run_name}/exports/openflamingo-step-00000002"
    checkpoint = Path(peer.folder) / "checkpoint.pt"
    assert torch.equal(logits(from_weights(trained, checkpoint)), expected)
    assert f"{checkpoint}: {peer.num_tensors:,} tensors" in summary(peer)

    flat = torch.load(checkpoint, weights_only=True)
    older = {}
    for name, value in flat.items():
        if ".gated_cross_attn_layer." in name:
            index, _, rest = name.partition(f".{model.decoder_layers_name}.")[2].split(".", 2)
            name = f"lang_encoder.gated_cross_attn_layers.{index}.{rest}"
        older[name] = value
    assert older.keys() != flat.keys()
    torch.save({"epoch": 1, "model_state_dict": older}, tmp_path / "v1.pt")
    assert torch.equal(logits(from_weights(trained, tmp_path / "v1.pt")), expected)

    ours = export(Export(run=run.run_name, format="safetensors", output=str(tmp_path / "ours")))
    moved = (tmp_path / "ours").rename(tmp_path / "moved")
    again = find_trained(str(moved))
    assert again is not None
    assert again.tokenizer == str(moved / "tokenizer")
    assert torch.equal(logits(build(again, offline=True)[0]), expected)
    assert ours.num_tensors == len(read_header(moved / "model.safetensors").shapes)

    capsys.readouterr()
    second = dataclasses.replace(
        run, run_name=str(tmp_path / "second"), init_from=str(checkpoint), max_steps=1
    )
    train(second)
    table = (tmp_path / "second" / "init-from.txt").read_text()
    assert table.startswith(f"initial weights: {checkpoint}\n")
    assert table in capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint, as far as an export reads it; made without training."""
    from flamingo.models.flamingo.build import create_model_and_transforms
    from flamingo.models.flamingo.checkpoint import trainable_state_dict
    from flamingo.modules.checkpoint_files import write_record, write_weights

    folder = tmp_path_factory.mktemp("run")
    clip, lm = save_clip(folder), save_lm(folder / "lm")
    model, _, tokenizer = create_model_and_transforms("tiny_vit", clip, lm, TOKENIZER)
    checkpoint = folder / "checkpoints" / "step-00000004"
    checkpoint.mkdir(parents=True)
    assert model.facts is not None
    write_weights(checkpoint / "model.safetensors", trainable_state_dict(model), model.identity())
    write_record(checkpoint, model.identity(), tokenizer)
    options = {
        "lm_path": lm,
        "tokenizer_path": TOKENIZER,
        "vision_encoder_path": "tiny_vit",
        "vision_encoder_pretrained": clip,
        "cross_attn_every_n_layers": 1,
        "vision_tokens": "pre_norm",
    }
    state = {"step": 4, "options": options}
    (checkpoint / "state.json").write_text(json.dumps(state))
    (folder / "checkpoints" / "latest").write_text("step-00000004\n")
    return folder


def test_an_export_is_whole_or_not_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    options = Export(run=str(run), format="safetensors", output=str(output))
    with monkeypatch.context() as patch:
        patch.setattr("flamingo.inference.export.write_weights", fail)
        with pytest.raises(OSError, match="No space left"):
            export(options)
    assert list(tmp_path.iterdir()) == []
    export(options)
    before = (output / "model.safetensors").stat().st_ino
    with pytest.raises(UserError, match=r"out: is there already; --overwrite replaces it"):
        export(options)
    export(dataclasses.replace(options, overwrite=True))
    assert (output / "model.safetensors").stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_manifest_lists_every_file(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = export(Export(run=str(run), format="safetensors", output=str(output)))
    manifest = json.loads((output / "export.json").read_text())
    there = {str(p.relative_to(output)): p.stat().st_size for p in output.rglob("*") if p.is_file()}
    del there["export.json"]
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == there
    assert {"model.safetensors", "tokenizer/tokenizer.json"} <= there.keys()
    assert result.bytes == sum(there.values())


@pytest.mark.parametrize("format", ["safetensors", "openflamingo"])
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640)])
def test_all_files_can_be_read_by_the_same_people(
    format: Any, mask: int, expected: int, run: Path, tmp_path: Path
) -> None:
    tokenizer = run / "checkpoints" / "step-00000004" / "tokenizer" / "tokenizer.json"
    tokenizer.chmod(0o600)
    before = os.umask(mask)
    try:
        export(Export(run=str(run), format=format, output=str(tmp_path / "out"), offline=True))
    finally:
        os.umask(before)
        tokenizer.chmod(0o644)
    assert modes(tmp_path / "out") == {expected}


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_no_export_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    options = Export(
        run=str(run), format="safetensors", output=str(tmp_path / "mine"), overwrite=True
    )
    with pytest.raises(UserError, match="mine: is no export of ours, and is not overwritten"):
        export(options)
    assert (tmp_path / "mine" / "thesis.tex").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "nowhere"}, "^nowhere: holds no checkpoint of ours$"),
        ({"merge_lora": True}, "^--merge-lora: .* has no LoRA adapters; leave it out$"),
        ({"output": "x.pt"}, r"^--output x\.pt: expected a folder"),
        ({"step": 5}, "has no checkpoint step-00000005; there are step-00000004"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    options: dict[str, Any] = {
        "run": str(run),
        "format": "safetensors",
        "output": str(tmp_path / "out"),
    }
    with pytest.raises(UserError, match=message):
        export(Export(**options | changes))
    assert not (tmp_path / "out").exists()


def test_step_and_best_name_two_checkpoints() -> None:
    with pytest.raises(UserError, match="--step and --checkpoint best name two"):
        Export(run="run", format="safetensors", step=3, checkpoint="best")


# ---- adapters


def with_adapters(run: Path) -> tuple[Flamingo, Any, Trained]:
    """The run's model with adapters in its LM."""
    trained = find_trained(str(run))
    assert trained is not None
    model, tokenizer = build(trained, offline=True)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["query_key_value"])
    inject_adapter_in_model(lora, model.lang_encoder)
    open_gates(model, 0.5)
    with torch.no_grad():
        for name, parameter in model.lang_encoder.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    return model.eval(), tokenizer, trained


def test_merged_adapters_are_in_the_lm_beside_the_weights(run: Path, tmp_path: Path) -> None:
    model, tokenizer, trained = with_adapters(run)
    expected = logits(model)
    merged = export_model(
        model, tokenizer, str(tmp_path), format="safetensors", merge=True, parts=trained.described()
    )
    assert merged == 4
    found = find_trained(str(tmp_path))
    assert found is not None
    assert found.parts["lm_path"] == str(tmp_path / "lm")
    assert not any("lora" in name for name in read_header(found.weights).shapes)
    torch.testing.assert_close(
        logits(build(found, offline=True)[0]), expected, atol=1e-5, rtol=1e-5
    )
    other = find_trained(str(run))
    assert other is not None
    with pytest.raises(UserError, match="does not fit: lm_sha256"):  # the LM without them
        build(found.moved(lm_path=other.parts["lm_path"]), offline=True)


def test_a_merged_language_model_can_be_read_as_the_rest(run: Path, tmp_path: Path) -> None:
    model, tokenizer, trained = with_adapters(run)
    with _folder_in_one(str(tmp_path / "out"), overwrite=False) as draft:
        export_model(
            model, tokenizer, draft, format="safetensors", merge=True, parts=trained.described()
        )
    assert (tmp_path / "out" / "lm" / "model.safetensors").is_file()
    assert len(modes(tmp_path / "out")) == 1
    folders = [path for path in (tmp_path / "out").rglob("*") if path.is_dir()]
    assert all(path.stat().st_mode & 0o500 == 0o500 for path in folders)


def test_openflamingos_form_has_no_place_for_adapters(run: Path, tmp_path: Path) -> None:
    model, tokenizer, trained = with_adapters(run)
    with pytest.raises(UserError, match="no place for LoRA adapters; --merge-lora"):
        export_model(
            model,
            tokenizer,
            str(tmp_path),
            format="openflamingo",
            merge=False,
            parts=trained.described(),
        )
    assert list(tmp_path.iterdir()) == []
    plain = wrap(make_lm("gpt_neox"))
    with pytest.raises(UserError, match="this run has no LoRA adapters"):
        export_model(
            plain,
            tokenizer,
            str(tmp_path),
            format="openflamingo",
            merge=True,
            parts=trained.described(),
        )
