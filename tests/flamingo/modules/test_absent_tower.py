"""A tower is known without being loaded, and a model can do without one on precomputed features."""

import shutil
from pathlib import Path

import pytest
import torch

from flamingo.modules.absent_tower import AbsentTower, absent_tower, tower_identity
from flamingo.modules.vision import blank_tokens, encode_images, prepare_tower, tower_width
from mmdata.errors import UserError
from tests.flamingo.conftest import World


def identity(folder: Path, tokens: str = "pre_norm") -> str:
    return tower_identity(f"local-dir:{folder}", None, tokens)


def test_a_folder_is_known_by_its_contents(world: World, tmp_path: Path) -> None:
    copy = shutil.copytree(world.clip, tmp_path / "elsewhere")
    before = identity(world.clip)
    assert identity(copy) == before
    assert identity(copy, "post_norm") != before
    weights = next(path for path in copy.iterdir() if path.suffix == ".safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert identity(copy) != before


def test_a_folder_whose_config_changes_is_another_tower(world: World, tmp_path: Path) -> None:
    copy = shutil.copytree(world.clip, tmp_path / "elsewhere")
    config = copy / "open_clip_config.json"
    config.write_text(config.read_text().replace('"image_size": 64', '"image_size": 96'))
    assert identity(copy).split()[0] != identity(world.clip).split()[0]
    assert identity(copy).endswith("pre_norm 96")


def test_a_tag_is_its_name_and_a_file_its_contents(tmp_path: Path) -> None:
    assert tower_identity("ViT-L-14", "openai", "pre_norm") == "ViT-L-14/openai pre_norm 224"
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"one")
    of_a_file = tower_identity("ViT-L-14", str(weights), "pre_norm")
    assert of_a_file.startswith("ViT-L-14/sha256-")
    weights.write_bytes(b"two")
    assert tower_identity("ViT-L-14", str(weights), "pre_norm") != of_a_file


def test_weights_that_nobody_named_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected its weights"):
        tower_identity("ViT-L-14", None, "pre_norm")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {}}}')
    with pytest.raises(UserError, match="holds no weights"):
        identity(tmp_path)
    with pytest.raises(UserError, match="neither a folder nor open_clip's"):
        absent_tower("no-such-model")


def test_an_absent_tower_has_its_width_and_computes_nothing(world: World) -> None:
    tower, processor = absent_tower(f"local-dir:{world.clip}")
    assert processor is None
    assert isinstance(tower, AbsentTower)
    assert prepare_tower(tower, "pre_norm") is tower
    assert tower_width(tower) == 64
    assert not list(tower.parameters())
    assert blank_tokens(tower).shape == (1, 1, 64)
    with pytest.raises(UserError, match=r"was not loaded.*expected none of 3 images"):
        encode_images(tower, torch.zeros(3, 3, 64, 64), 1)
