"""Patch tokens before and after `ln_post`, towers that cannot give them, and activations."""

import open_clip
import pytest
import torch

from flamingo.modules.vision import (
    blank_tokens,
    configured_width,
    encode_images,
    load_tower,
    map_tower,
    prepare_tower,
)
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.parity_case import make_tower
from tests.flamingo.models.flamingo.tiny_hub import save_clip

SIZE = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}


def make_clip(**vision: object) -> torch.nn.Module:
    return open_clip.model.CLIP(embed_dim=16, vision_cfg=SIZE | vision, text_cfg=TEXT)


def test_post_norm_is_ln_post_of_pre_norm():
    tower, images = make_tower(), torch.randn(2, 3, 64, 64)
    pre = encode_images(prepare_tower(tower, "pre_norm"), images, chunk=8)
    post = encode_images(prepare_tower(tower, "post_norm"), images, chunk=8)
    assert (pre - post).abs().max() > 0.1
    torch.testing.assert_close(tower.ln_post(pre), post)


def test_tokens_of_an_image_do_not_depend_on_the_chunk():
    tower, images = prepare_tower(make_tower(), "pre_norm"), torch.randn(5, 3, 64, 64)
    whole = encode_images(tower, images, chunk=5)
    torch.testing.assert_close(encode_images(tower, images, chunk=2), whole)
    assert whole.shape == (5, 16, 64)
    assert not whole.requires_grad


@pytest.mark.parametrize(
    ("vision", "kind"),
    [
        ({"attentional_pool": True}, "VisionTransformer with attention pooling"),
        ({"pool_type": "none"}, "VisionTransformer with pool_type 'none'"),
        ({"layers": [1, 1, 1, 1]}, "ModifiedResNet"),
    ],
)
def test_other_towers_are_refused_by_name(vision, kind):
    tower = make_clip(**vision).visual
    with pytest.raises(UserError, match=f"plain VisionTransformer .*, got {kind}"):
        prepare_tower(tower, "pre_norm")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ViT-B-16-SigLIP", "vit_base_patch16_siglip_224"),
        ("EVA02-L-14", "eva02_large_patch14_clip_224"),
        ("RN50", "a ResNet"),
    ],
)
def test_they_are_refused_before_anything_is_built(name, kind):
    with pytest.raises(UserError, match=f"vision tower {name}: expected .*, got {kind}"):
        configured_width(name)


def test_an_unknown_tower_is_one_line():
    with pytest.raises(UserError, match="vision tower ViT-X: expected a model of open_clip"):
        configured_width("ViT-X")
    assert configured_width("ViT-L-14") == 1024


def test_other_token_kinds_are_an_error():
    with pytest.raises(UserError, match="expected 'pre_norm' or 'post_norm', got 'last'"):
        prepare_tower(make_tower(), "last")


def test_quickgelu_follows_the_weights(monkeypatch):
    """ViT-L-14's config no longer says it, the tag of OpenAI's weights does."""
    asked = {}

    def fake(name, **options):
        asked.update(options)
        return make_clip(), None, None

    monkeypatch.setattr(open_clip, "create_model_and_transforms", fake)
    load_tower("ViT-L-14", "openai")
    assert asked["force_quick_gelu"] is True
    load_tower("ViT-L-14", "laion2b_s32b_b82k")
    assert asked["force_quick_gelu"] is False


def test_quickgelu_is_in_the_tower(tmp_path, monkeypatch):
    make_tower()  # registers its config
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, "tiny-vit", {"openai": {"quick_gelu": True}}
    )
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda name, tag: {"quick_gelu": True} if tag else {}
    )
    weights = tmp_path / "clip.pt"
    torch.save(open_clip.create_model("tiny_vit").state_dict(), weights)
    tower, _ = load_tower("tiny_vit", str(weights))
    kinds = {type(module).__name__ for module in tower.modules()}
    assert "QuickGELU" in kinds
    assert "GELU" not in kinds


def test_offline_weights_behind_a_plain_url_have_to_be_there(tmp_path, monkeypatch):
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://example.com/tiny.pt"}
    )
    make_tower()
    message = f"tiny_vit / tag: offline, and {tmp_path}/tiny.pt does not exist"
    with pytest.raises(UserError, match=message):
        load_tower("tiny_vit", "tag", cache_dir=str(tmp_path), offline=True)
    torch.save(open_clip.create_model("tiny_vit").state_dict(), tmp_path / "tiny.pt")
    load_tower("tiny_vit", "tag", cache_dir=str(tmp_path), offline=True)


def test_offline_weights_of_the_hub_have_to_be_in_the_cache(tmp_path):
    with pytest.raises(UserError, match=r"ViT-B-32 / laion2b_s34b_b79k \(offline"):
        load_tower("ViT-B-32", "laion2b_s34b_b79k", cache_dir=str(tmp_path), offline=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_mapped_tower_is_the_loaded_one_without_memory(tmp_path, zipped, caplog):
    path = save_clip(tmp_path)
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=zipped)
    loaded, _ = load_tower("tiny_vit", path)
    mapped, _, weights = map_tower("tiny_vit", path)
    assert all(parameter.is_meta for parameter in mapped.parameters())
    assert not any(buffer.is_meta for buffer in mapped.buffers())
    expected = loaded.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert ("format before torch 1.6" in caplog.text) != zipped
    assert not next(load_tower("tiny_vit", path)[0].parameters()).is_meta  # as before


def test_blank_tokens_come_from_the_tower_or_beside_features_from_nowhere():
    tower = prepare_tower(make_tower(), "pre_norm")
    seen = []
    tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    width = blank_tokens(tower).shape[1:]
    assert seen == [1]
    beside = blank_tokens(tower, torch.empty(0, *width, dtype=torch.bfloat16))
    assert beside.shape == (1, *width)
    assert beside.dtype == torch.bfloat16
    assert seen == [1]
