"""Flamingo as it is trained: the network, and what it answers to the trainer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flamingo.data.batch import Batch
from flamingo.data.labels import pad
from flamingo.models.family import Prompt
from flamingo.models.flamingo.checkpoint import is_ours, trainable_names
from flamingo.models.flamingo.flops import count_flops
from flamingo.models.flamingo.media import EncodedMedia
from flamingo.models.flamingo.network import FlamingoNetwork
from flamingo.models.flamingo.units import model_parts, shard_units
from flamingo.models.flamingo.worst_batch import worst_batch
from flamingo.modules.freezing import is_adapter
from flamingo.modules.language_model import embedding_and_head
from flamingo.modules.loss import IGNORED, find_target_positions, label_scores
from flamingo.modules.placement import to_device

#: Parameters with this in their name decay, as in OpenFlamingo; resampler and token rows do not.
DECAYING = "gated_cross_attn"
#: Of the LM and the tower, where they train, matrices decay, but for those that are looked up.
_LOOKED_UP = ("embed", "wte", "wpe")


class Flamingo(FlamingoNetwork):
    """Construction and forward pass are those of `FlamingoNetwork`.

    See `create_model_and_transforms` for the usual way to make one.
    """

    # `generate` and `allow_packing` run the LM alone.
    outside_forward = ("generate", "allow_packing")
    shard_units = shard_units
    parts = model_parts
    kept_names = trainable_names
    step_flops = count_flops
    largest_batch = worst_batch

    @property
    def image_size(self) -> int:
        """S."""
        tower: Any = self.vision_encoder
        return int(tower.image_size[0])

    @property
    def feature_width(self) -> int:
        """D."""
        return self.vis_dim

    def loss(self, batch: Batch, device: torch.device, through: nn.Module | None = None) -> Tensor:
        """The cross-entropy summed over a batch's targets; see `TrainableModel`."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else to_device(tensor, device)

        bounds = batch.document_bounds
        output = (self if through is None else through)(
            input_ids=moved(batch.input_ids),
            attention_mask=moved(batch.attention_mask),
            labels=moved(batch.labels),
            images=self.pictures(batch, device),
            features=moved(batch.features),
            # Numbers, not a tensor: what wraps a model would bring that to the device.
            images_per_sample=batch.images_per_sample.tolist(),
            document_index=moved(batch.document_index),
            document_bounds=moved(bounds),
            document_lengths=None if bounds is None else bounds.diff().tolist(),
            right_padded=True,
            target_positions=moved(find_target_positions(batch.labels)),
            target_groups=_targets_of_streams(batch),
            loss_reduction="sum",
            keep_graph=True,
            check=False,
        )
        found: Tensor = output.loss
        return found

    def head(self) -> nn.Module:
        """The LM's."""
        return embedding_and_head(self.lang_encoder)[1]

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Cross-attention does, and matrices of an LM and a tower that train."""
        if DECAYING in name:
            return True
        if is_ours(name) or is_adapter(name) or parameter.dim() < 2:
            return False
        return not any(word in name for word in _LOOKED_UP)

    def identity(self) -> dict[str, Any]:
        """What `create_model_and_transforms` found out of the parts; empty without it."""
        return self.facts.record() if self.facts else {}

    def continue_prompts(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, num_beams: int = 1
    ) -> list[list[int]]:
        """The ids behind each prompt, as `generate` writes them."""
        device = self.perceiver.latents.device
        longest = max(len(one.input_ids) for one in prompts)
        ids = torch.full((len(prompts), longest), self.pad_token_id)
        for row, prompt in zip(ids, prompts, strict=True):
            row[longest - len(prompt.input_ids) :] = torch.tensor(prompt.input_ids)
        lengths = torch.tensor([len(one.input_ids) for one in prompts])
        mask = (torch.arange(longest) >= longest - lengths.unsqueeze(1)).long()
        images = torch.cat([one.images for one in prompts]).to(device)
        output = self.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            images=self.normalization.applied(images) if len(images) else None,
            images_per_sample=[len(one.images) for one in prompts],
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
        )
        written: list[list[int]] = output[:, longest:].tolist()
        return written

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """The logarithm of each candidate's probability; a prompt's pictures are encoded once."""
        device = self.perceiver.latents.device
        found = []
        for prompt, texts in zip(prompts, candidates, strict=True):
            ids, mask = pad([[*prompt.input_ids, *text] for text in texts], self.pad_token_id)
            labels = ids.masked_fill(mask == 0, IGNORED)
            labels[:, : len(prompt.input_ids)] = IGNORED
            number = len(prompt.images)
            images = self.normalization.applied(prompt.images.to(device)) if number else None
            latents = self.encode(images, [number], device=device).latents
            media = EncodedMedia(
                latents=None if latents is None else latents.expand(len(texts), -1, -1, -1),
                images_per_sample=(number,) * len(texts),
            )
            logits = self(ids.to(device), mask.to(device), media=media, right_padded=True).logits
            found.append(label_scores(logits, labels.to(device)).tolist())
        return found


def _targets_of_streams(batch: Batch) -> list[int] | None:
    """Targets of each stream of a batch of several, which lie in the order of their sequences."""
    if batch.stream_sizes is None:
        return None
    parts = batch.labels.split(list(batch.stream_sizes))
    return [len(find_target_positions(part)) for part in parts]
