"""`mmdata generate`: text for pictures from the command line, with one image or several."""

import torch

from flamingo.data.decode import decode_image
from flamingo.inference.options import Generate
from flamingo.models.family import Prompt
from flamingo.modules.hub import quiet_loading
from flamingo.parallel.world import choose_device
from flamingo.train.checkpoint.trained import build, find_trained
from mmdata.errors import UserError
from mmdata.training_view.sequence import EOC_TOKEN, MEDIA_TOKEN, MediaTokenizer


def generate(options: Generate) -> str:
    """The text that a trained model writes behind a prompt.

    Raises:
        UserError: no checkpoint, a picture that cannot be read, or parts that do not fit.
    """
    quiet_loading()
    trained = find_trained(options.checkpoint)
    if trained is None:
        raise UserError(f"--checkpoint {options.checkpoint}: holds no checkpoint of ours")
    trained = trained.moved(**options.places())
    model, tokenizer = build(trained, offline=options.offline)
    model.to(choose_device(options.device)).eval()
    ids = prompt_ids(options.prompt, MediaTokenizer(tokenizer))
    prompt = Prompt(ids, _images(options.image, model.image_size))
    (written,) = model.continue_prompts(
        [prompt], max_new_tokens=options.max_new_tokens, num_beams=options.num_beams
    )
    return str(tokenizer.decode(written, skip_special_tokens=True)).strip()


def prompt_ids(prompt: str, tokenizer: MediaTokenizer) -> list[int]:
    """A prompt's token ids: `<image>` and `<|endofchunk|>` are structure here, typed by a person.

    Everything between them is text; a special token of the tokenizer's own is text as well.
    """
    ids = list(tokenizer.prefix)
    for number, part in enumerate(prompt.split(MEDIA_TOKEN)):
        if number:
            ids.append(tokenizer.image_id)
        for chunk, text in enumerate(part.split(EOC_TOKEN)):
            if chunk:
                ids.append(tokenizer.endofchunk_id)
            if text:
                ids += tokenizer.encode_text(text)
    return ids


def _images(paths: tuple[str, ...], size: int) -> torch.Tensor:
    """Pictures as uint8 (N, 3, size, size)."""
    images = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                images.append(decode_image(file.read(), size))
        except OSError as error:
            raise UserError(f"--image {path}: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"--image {path}: cannot be decoded: {error}") from error
    return torch.stack(images) if images else torch.zeros(0, 3, size, size, dtype=torch.uint8)
