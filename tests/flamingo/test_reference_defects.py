"""Defects of OpenFlamingo's trainer, each shown on its own rule, and ours without it.

The loader's (order of images, literal tags, thresholds) are in `tests/flamingo/data`, the model's
and the checkpoints' in `tests/flamingo/model`.
"""

import torch
from torch import nn

from flamingo.models.flamingo.build import create_model_and_transforms
from flamingo.modules.vision import tower_name
from flamingo.train.optim import clip_gradients
from flamingo.train.schedule import learning_rate_factor
from tests.flamingo.conftest import World


def micro_gradients() -> list[torch.Tensor]:
    """Of four micro-batches: one large first, three that agree with each other."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(50, generator=generator)
    return [8 * torch.randn(50, generator=generator), base, base, base]


def test_gradients_are_clipped_once_a_step_not_once_a_micro_batch() -> None:
    weight = nn.Parameter(torch.zeros(50))
    right = torch.stack(micro_gradients()).sum(dim=0)
    reference, ours = torch.zeros(50), torch.zeros(50)
    for gradient in micro_gradients():
        reference += gradient
        reference *= min(1.0, 1.0 / float(reference.norm()))  # what the reference does
        ours += gradient
    weight.grad = ours
    norm = clip_gradients([weight], 1.0)
    assert torch.allclose(norm, right.norm())
    assert torch.cosine_similarity(weight.grad, right, dim=0) > 0.999999
    assert torch.cosine_similarity(reference, right, dim=0) < 0.9


def test_schedules_count_optimizer_steps_not_micro_batches() -> None:
    micro_batches, accumulation = 400, 4
    steps = micro_batches // accumulation

    def factor(step: int, total: int) -> float:
        return learning_rate_factor(step, schedule="cosine", warmup_steps=0, total_steps=total)

    reference_at_end = factor(steps - 1, micro_batches)  # its length ignores accumulation
    ours_at_end = factor(steps - 1, steps)
    assert reference_at_end > 0.85
    assert ours_at_end < 0.001


def test_padding_images_are_not_encoded(world: World) -> None:
    model, _, tokenizer = create_model_and_transforms(
        tower_name(str(world.clip)), None, str(world.lm), str(world.lm), offline=True
    )
    encoded: list[int] = []
    model.vision_encoder.register_forward_hook(
        lambda _module, args, _out: encoded.append(args[0].shape[0])
    )
    image, text = tokenizer.convert_tokens_to_ids(["<image>", "a"])
    ids = torch.tensor([[image, text, image, text], [image, text, text, text]])
    padded = torch.zeros(2, 6, 1, 3, 64, 64)  # as the reference pads every document: 12 slots
    padded[0, :2], padded[1, :1] = 0.5, 0.5
    with torch.no_grad():
        model(input_ids=ids, vision_x=padded)
    assert sum(encoded) == 3
