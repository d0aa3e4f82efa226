"""`create_model_and_transforms` from folders on this machine."""

import socket

import pytest
import torch
from PIL import Image

from flamingo.models.flamingo.build import create_model_and_transforms
from flamingo.models.flamingo.checkpoint import export_openflamingo, trainable_state_dict
from flamingo.modules.checkpoint_files import write_weights
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_hub import TOKENIZER, save_clip, save_lm
from tests.flamingo.models.flamingo.tiny_lms import open_gates


@pytest.fixture
def paths(tmp_path):
    return {
        "clip_vision_encoder_path": "tiny_vit",
        "clip_vision_encoder_pretrained": save_clip(tmp_path),
        "lang_encoder_path": save_lm(tmp_path / "lm"),
        "tokenizer_path": TOKENIZER,
    }


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_openflamingos_call_gives_model_processor_and_tokenizer(paths, no_network):
    model, image_processor, tokenizer = create_model_and_transforms(
        *paths.values(),
        cross_attn_every_n_layers=2,
        use_local_files=True,
        decoder_layers_attr_name=None,
        freeze_lm_embeddings=False,
        cache_dir=None,
        offline=True,
    )
    assert [layer.gated_cross_attn_layer is not None for layer in model.decoder_blocks] == [
        False, True, False, True,
    ]  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids(["<|endofchunk|>", "<image>", "<PAD>"])
    assert ids == [2000, 2001, 2002] == [*model.media_tokens.token_ids, model.pad_token_id]
    pixels = image_processor(Image.new("RGB", (100, 80)))
    batch = tokenizer(["<image>A cat<|endofchunk|>"], return_tensors="pt")
    vision_x = pixels[None, None, None]
    out = model(vision_x=vision_x, lang_x=batch["input_ids"], labels=batch["input_ids"])
    assert out.loss.isfinite()
    assert out.logits.shape[-1] == len(tokenizer) == 2003
    text = model.generate(
        vision_x=vision_x,
        lang_x=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=3,
        num_beams=3,
    )
    assert text.shape[0] == 1
    assert model.lang_encoder.dtype == torch.float32


def test_new_rows_depend_on_the_seed_alone(paths):
    rows = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        model = create_model_and_transforms(**paths, seed=7)[0]
        lm = model.lang_encoder
        rows.append((lm.get_input_embeddings().weight[2000:], lm.get_output_embeddings().weight))
    for one, other in zip(*rows, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(rows[0][0][:2], torch.zeros(2, 64))  # ours lie elsewhere
    assert rows[0][0][2].std() > 0.01  # <PAD>


def test_a_padded_vocabulary_shrinks_to_the_tokenizer(paths, tmp_path):
    paths["lang_encoder_path"] = save_lm(tmp_path / "padded", vocab_size=2048)
    model = create_model_and_transforms(**paths)[0]
    assert model.lang_encoder.get_output_embeddings().weight.shape[0] == 2003
    assert model.facts.rows == 2003


@pytest.mark.parametrize("form", ["openflamingo.pt", "openflamingo.safetensors", "ours"])
def test_init_from_a_checkpoint(paths, tmp_path, form):
    model, _, _ = create_model_and_transforms(**paths, seed=1)
    open_gates(model, 0.4)
    if form == "openflamingo.pt":
        path = tmp_path / "checkpoint.pt"
        weights = {f"module.{n}": v for n, v in export_openflamingo(model).items()}
        torch.save({"epoch": 3, "model_state_dict": weights}, path)
    elif form == "openflamingo.safetensors":
        path = tmp_path / "checkpoint.safetensors"
        write_weights(path, export_openflamingo(model), None)
    else:
        path = tmp_path / "ours.safetensors"
        write_weights(path, trainable_state_dict(model), model.identity())
    other, _, _ = create_model_and_transforms(**paths, seed=2, init_from=path)
    ids = torch.tensor([[2001, 5, 6, 2000, 7]])
    arguments = {"images": torch.randn(1, 3, 64, 64), "images_per_sample": [1]}
    assert torch.equal(other(ids, **arguments).logits, model(ids, **arguments).logits)


def test_a_checkpoint_of_another_model_is_refused_before_weights_load(paths, tmp_path, monkeypatch):
    model, _, _ = create_model_and_transforms(**paths, cross_attn_every_n_layers=2)
    torch.save(export_openflamingo(model), tmp_path / "checkpoint.pt")
    monkeypatch.setattr("flamingo.models.flamingo.build.load_tower", None)  # not reached
    message = "cross-attention before layers: expected 0 1 2 3, got 1 3"
    with pytest.raises(UserError, match=message):
        create_model_and_transforms(**paths, init_from=tmp_path / "checkpoint.pt")


def test_what_is_not_there_is_one_line(paths, tmp_path):
    with pytest.raises(UserError, match=r"^language model .*nowhere: "):
        create_model_and_transforms(
            **paths | {"lang_encoder_path": str(tmp_path / "nowhere")}, offline=True
        )
    with pytest.raises(UserError, match=r"^tokenizer .*nowhere: "):
        create_model_and_transforms(
            **paths | {"tokenizer_path": str(tmp_path / "nowhere")}, offline=True
        )


def test_gradient_checkpointing_reaches_every_block(paths):
    model, _, _ = create_model_and_transforms(**paths, gradient_checkpointing=True)
    assert all(layer.recompute == "full" for layer in model.decoder_blocks)
    assert model.perceiver.recompute == "full"
