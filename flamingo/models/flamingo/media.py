"""Images of a batch: the ragged form, OpenFlamingo's padded form, and their latents.

The ragged form is one stack (N, 3, H, W) of the images of sample 0, then of sample 1 and so on,
each in the order of its `<image>` tags, and `images_per_sample`, B numbers on the CPU. Only real
images are encoded. The *latents* are padded afterwards, to the largest number of images in a
sample: they are small, and padding never is attended to.

Dimensions: B samples, T media slots, N images, F frames, K latents of an image, D latent width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flamingo.modules.placement import to_device
from mmdata.errors import UserError
from mmdata.wording import plural


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedMedia:
    """The images of a batch after the resampler, for use in one call or in many."""

    latents: Tensor | None
    """(B, T, K, D); None when no sample has an image."""
    images_per_sample: tuple[int, ...]


def unpad_openflamingo(
    vision_x: Tensor, tags_per_sample: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """(B, T, F=1, 3, H, W) -> the ragged form, without trailing slots that no tag uses."""
    if vision_x.dim() != 6 or vision_x.shape[2] != 1:
        raise UserError(
            "vision_x: expected (batch, images, frames=1, channels, height, width), "
            f"got {tuple(vision_x.shape)}"
        )
    if vision_x.shape[0] != len(tags_per_sample):
        raise UserError(
            f"vision_x: expected {plural(len(tags_per_sample), 'sample')}, got {vision_x.shape[0]}"
        )
    check_tags(tags_per_sample, [vision_x.shape[1]] * len(tags_per_sample))
    used = [sample[:tags, 0] for sample, tags in zip(vision_x, tags_per_sample, strict=True)]
    return torch.cat(used), list(tags_per_sample)


def check_tags(tags_per_sample: Sequence[int], images_per_sample: Sequence[int]) -> None:
    """More `<image>` tags than images is an error: such a tag would attend to nothing sensible."""
    for sample, (tags, images) in enumerate(zip(tags_per_sample, images_per_sample, strict=True)):
        if tags > images:
            raise UserError(
                f"sample {sample} of the batch: expected an image for each of its {tags} "
                f"<image> tags, got {images}"
            )


def counts_of(images_per_sample: Tensor | Sequence[int], batch: int, num_images: int) -> list[int]:
    """B plain numbers that add up to the images of the stack."""
    if isinstance(images_per_sample, Tensor):
        images_per_sample = images_per_sample.tolist()
    counts = list(images_per_sample)
    if len(counts) != batch or sum(counts) != num_images or min(counts, default=0) < 0:
        raise UserError(
            f"images_per_sample: expected {batch} numbers that add up to {num_images}, got {counts}"
        )
    return counts


def pad_latents(latents: Tensor, counts: Sequence[int]) -> Tensor:
    """Ragged latents (N, K, D) -> (B, T, K, D), zeros where a sample has fewer images."""
    batch, slots = len(counts), max(counts)
    if any(count != slots for count in counts):
        where = [b * slots + t for b, count in enumerate(counts) for t in range(count)]
        index = to_device(torch.tensor(where), latents.device)
        zeros = latents.new_zeros(batch * slots, *latents.shape[1:])
        latents = zeros.index_copy(0, index, latents)
    padded: Tensor = latents.unflatten(0, (batch, slots))
    return padded
