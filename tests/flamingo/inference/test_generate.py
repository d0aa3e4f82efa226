"""`mmdata generate`: pictures and a prompt in, text out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flamingo.inference.generate import generate, prompt_ids
from flamingo.inference.options import Generate
from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from mmdata.errors import UserError
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import load_tokenizer
from tests.flamingo.conftest import World


@pytest.mark.slow
def test_writes_text_for_one_picture_and_for_several(
    run_options: Callable[..., Train], tmp_path: Path
) -> None:
    run = run_options("run", max_steps=1)
    train(run)
    pictures = sorted((Path(__file__).parents[3] / "examples/mmc4/images/0").glob("*.webp"))[:2]
    one = Generate(
        checkpoint=run.run_name,
        image=(str(pictures[0]),),
        prompt="<image>An image of",
        max_new_tokens=5,
        offline=True,
        device="cpu",
    )
    assert generate(one) == generate(one)
    few_shot = Generate(
        checkpoint=run.run_name,
        image=tuple(map(str, pictures)),
        prompt="<image>Bread<|endofchunk|><image>",
        max_new_tokens=5,
        num_beams=3,
        offline=True,
        device="cpu",
    )
    assert isinstance(generate(few_shot), str)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"--image .*broken\.jpg: cannot be decoded"):
        generate(
            Generate(
                checkpoint=run.run_name,
                image=(str(broken),),
                prompt="<image>",
                offline=True,
                device="cpu",
            )
        )


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint of ours"):
        generate(Generate(checkpoint=str(tmp_path), prompt="hello"))


def test_tags_in_a_prompt_are_structure(world: World) -> None:
    tokenizer = load_tokenizer(str(world.lm), local_files_only=True)
    image, end = tokenizer.convert_tokens_to_ids(["<image>", "<|endofchunk|>"])
    ids = prompt_ids("<image>a cat<|endofchunk|><image>", MediaTokenizer(tokenizer))
    assert ids[0] == image
    assert ids[-2:] == [end, image]
    assert ids.count(image) == 2
