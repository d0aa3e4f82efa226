"""Flamingo: a frozen vision tower, a resampler, and a frozen LM with gated cross-attention.

The images of a batch are one ragged stack, encoded once and in chunks; OpenFlamingo's padded
(B, T, F=1, C, H, W) is taken too and loses its padding first. What trains are the resampler, the
cross-attention blocks and the two media-token rows; all else stays frozen, unless `freeze` says
otherwise.

Attribute names are OpenFlamingo's (`vision_encoder`, `perceiver`, `lang_encoder`), so that
parameter names are too.

Dimensions: B samples, L positions, N images, T media slots, K latents, D latent width.
"""

from collections.abc import Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flamingo.models.family import TrainableModel
from flamingo.models.flamingo import generation
from flamingo.models.flamingo.context import MediaContext, count_tags
from flamingo.models.flamingo.decoder import condition_layers
from flamingo.models.flamingo.identity import Identity
from flamingo.models.flamingo.initialise import initialise, initialise_adapters
from flamingo.models.flamingo.media import (
    EncodedMedia,
    check_tags,
    counts_of,
    pad_latents,
    unpad_openflamingo,
)
from flamingo.models.flamingo.media_tokens import MediaTokenRows, initialise_rows
from flamingo.models.flamingo.resampler import PerceiverResampler
from flamingo.modules.attention import adopt_attention, text_rows
from flamingo.modules.documents import Documents
from flamingo.modules.freezing import FROZEN, free_parts, keep_in_eval
from flamingo.modules.head_loss import HeadLoss, LossKernel
from flamingo.modules.language_model import find_decoder_layers, text_config
from flamingo.modules.lm_cache import cache_argument, cache_in, one_cache, positions_held
from flamingo.modules.loss import CausalOutput, LossReduction
from flamingo.modules.packed import Packing, Way, find_packing, own_tags, ways_of
from flamingo.modules.recompute import Recompute
from flamingo.modules.vision import (
    VisionTokens,
    blank_tokens,
    encode_images,
    prepare_tower,
    tower_width,
)
from mmdata.errors import UserError

Counts = Tensor | Sequence[int]


class FlamingoNetwork(TrainableModel):
    """The modules of a Flamingo, and their forward pass.

    Construction
    ------------
    vision_tokens
        'pre_norm', as the released models were trained, or 'post_norm'; see `vision`.
    vision_chunk
        Images that go through the tower at once.
    freeze
        The parts of `FROZEN` that do not train; without one of them that part is fine-tuned whole.
    freeze_lm_embeddings, train_output_rows
        Whether the media-token rows stay as they are: the input's; and whether those of an untied
        output train, which stay otherwise, as in OpenFlamingo (tied, they are the input's). Where
        all of the LM trains, they do.
    loss_kernel
        How the loss of target positions is computed; see `head_loss`.

    Forward
    -------
    input_ids, attention_mask, labels
        (B, L); labels are not shifted, -100 is no target. `lang_x` is another name for ids.
    images, images_per_sample
        The ragged form: (N, 3, H, W) and B numbers, best kept on the CPU.
    vision_x
        OpenFlamingo's form (B, T, 1, 3, H, W); slots that no tag uses are dropped.
    features
        In place of images: the tower's patch tokens of them, (N, V, D), as `encode_images` gives.
    document_index
        (B, L) which document of a packed sequence each position belongs to, -1 for padding; after
        `allow_packing`. It stands in for the attention mask.
    document_bounds, document_lengths
        What follows from it, `document_bounds` of the batch and how long each is, as numbers;
        without them they are read from the device.
    right_padded
        All padding stands behind what is real, and no logits of it are read: most LMs then need no
        mask.
    media
        What `encode` returned, in place of images.
    cache
        The LM's key-value cache, filled on the way; `past_key_values` is another name for it.
    preceding_tags
        (B,) how many tags stood before these ids, in text that a cache holds.
    loss_reduction
        'sum' for a trainer that divides by the targets of its global batch.
    target_positions
        From `find_target_positions`: logits are computed there only, as (n, V); or, beside labels,
        none at all, as `loss_kernel` says.
    target_groups
        Target positions of each of some groups, in order, for a loss of each: (number of groups,).
    keep_graph
        See `encode`.
    check
        Compares tags and images, which reads from the device; a loader may do it beforehand.
    """

    def __init__(
        self,
        vision_encoder: nn.Module,
        lang_encoder: nn.Module,
        *,
        eoc_token_id: int,
        media_token_id: int,
        pad_token_id: int,
        cross_attn_every_n_layers: int = 1,
        decoder_layers_attr_name: str | None = None,
        vision_tokens: VisionTokens = "pre_norm",
        vision_chunk: int = 64,
        freeze_lm_embeddings: bool = False,
        train_output_rows: bool = False,
        freeze: Collection[str] = FROZEN,
        loss_kernel: LossKernel = "auto",
    ) -> None:
        super().__init__()
        self.freeze = frozenset(freeze)
        self.eoc_token_id, self.media_token_id = eoc_token_id, media_token_id
        self.pad_token_id = pad_token_id
        self.cross_attn_every_n_layers = cross_attn_every_n_layers
        self.vision_tokens, self.vision_chunk = vision_tokens, vision_chunk
        self.facts: Identity | None = None
        """What a checkpoint records of this model; set by `create_model_and_transforms`."""
        self._packing: Packing | None = None
        self._context = MediaContext()
        self.vision_encoder = prepare_tower(vision_encoder, vision_tokens)
        self.vis_dim = tower_width(vision_encoder)
        self.perceiver = PerceiverResampler(self.vis_dim)
        self.lang_encoder = lang_encoder
        adopt_attention(lang_encoder)
        free_parts(vision_encoder, lang_encoder, self.freeze)
        self.media_tokens = MediaTokenRows(
            lang_encoder,
            eoc_token_id=eoc_token_id,
            media_token_id=media_token_id,
            context=self._context,
        )
        self._head_loss = HeadLoss(lang_encoder, loss_kernel, self.media_tokens.of_head)
        self.lang_dim = cast(int, text_config(lang_encoder).hidden_size)
        self.decoder_layers_name, layers = find_decoder_layers(
            lang_encoder, decoder_layers_attr_name
        )
        self.decoder_blocks = condition_layers(
            layers,
            every_n=cross_attn_every_n_layers,
            text_width=self.lang_dim,
            latent_width=self.vis_dim,
            context=self._context,
        )
        lang_encoder.register_forward_pre_hook(self._before_lm, with_kwargs=True)
        self._freeze(rows=freeze_lm_embeddings, train_output_rows=train_output_rows)
        self.eval()

    # ---- construction

    def _freeze(self, *, rows: bool, train_output_rows: bool) -> None:
        media_tokens = self.media_tokens
        media_tokens.input_rows.requires_grad_(not rows)
        if media_tokens.output_rows is not None:
            with_lm = "lm" not in self.freeze and not rows
            media_tokens.output_rows.requires_grad_(train_output_rows or with_lm)
        elif rows and train_output_rows:
            raise UserError(
                "--train-output-rows: the output rows of this language model are its input rows "
                "(tied), which --freeze-lm-embeddings keeps as they are: leave one of them out"
            )

    def initialise(
        self, seed: int, *, new_token_init: str = "normal", old_rows: int | None = None
    ) -> None:
        """Fills everything that is ours from the seed alone; also after `to_empty`.

        The LM's matrices had `old_rows` rows before they grew; those behind enter no mean.
        """
        generator = torch.Generator().manual_seed(seed)
        initialise(self.perceiver, generator)
        for block in self.cross_attention_blocks:
            initialise(block, generator)
        initialise_adapters(self.lang_encoder, seed)
        token_ids = self.media_tokens.token_ids
        initialise_rows(
            self.media_tokens,
            self.lang_encoder,
            mode=new_token_init,
            seed=seed,
            num_known_rows=min(token_ids if old_rows is None else (old_rows, *token_ids)),
        )

    @property
    def cross_attention_blocks(self) -> list[nn.Module]:
        """The gated cross-attention blocks, first to last."""
        blocks = (layer.gated_cross_attn_layer for layer in self.decoder_blocks)
        return [block for block in blocks if block is not None]

    def set_activation_checkpointing(self, policy: Recompute | None) -> None:
        """Recomputes our blocks and the decoder layers in the backward pass; None: keeps them.

        Of a tower that trains whole blocks are recomputed under either policy, by open_clip.
        """
        self.perceiver.recompute = policy
        for layer in self.decoder_blocks:
            layer.recompute = policy
        if "vision" not in self.freeze:
            cast(Any, self.vision_encoder).set_grad_checkpointing(policy is not None)

    def allow_packing(self, *, tries: bool = True) -> None:
        """Finds out how this LM keeps packed documents apart, by trying; else takes their bounds
        where the LM's attention is ours, and a mask where not, which is the larger of the others.

        Raises:
            UserError: it cannot.
        """
        if tries:
            self._packing = find_packing(self.lang_encoder)
        else:
            way: Way = "bounds" if "bounds" in ways_of(self.lang_encoder) else "mask"
            self._packing = Packing(way, next(self.lang_encoder.parameters()).dtype)

    def train(self, mode: bool = True) -> "FlamingoNetwork":  # noqa: FBT001, FBT002 (torch's own)
        """Frozen parts stay in eval mode; cross-attention and LoRA adapters follow `mode`."""
        super().train(mode)
        blocks = self.cross_attention_blocks
        keep_in_eval(self.vision_encoder, self.lang_encoder, blocks, self.freeze, mode=mode)
        return self

    # ---- images

    def encode(
        self,
        images: Tensor | None,
        images_per_sample: Counts,
        *,
        features: Tensor | None = None,
        keep_graph: bool = False,
        device: torch.device | None = None,
    ) -> EncodedMedia:
        """Ragged images (N, 3, H, W), or their patch tokens (N, V, D), to latents.

        With `keep_graph` a batch without any image runs a blank one times 0, so that every rank
        of a distributed run goes through the same modules and parameters; where other ranks have
        features, it is given (0, V, D) of them. `device` is where it is computed: parameters may
        lie elsewhere.
        """
        given = images if features is None else features
        num_images = 0 if given is None else given.shape[0]
        batch = len(images_per_sample)
        counts = counts_of(images_per_sample, batch, num_images)
        if num_images:
            if features is None:
                assert images is not None
                features = encode_images(self.vision_encoder, images, self.vision_chunk)
            latents = pad_latents(self._resample(features), counts)
        elif keep_graph:
            device = device or self.perceiver.latents.device
            tokens = blank_tokens(self.vision_encoder, features, device)
            blank = self._resample(tokens) * 0.0
            latents = blank.unsqueeze(0).expand(batch, -1, -1, -1)
        else:
            latents = None
        return EncodedMedia(latents=latents, images_per_sample=tuple(counts))

    def _resample(self, tokens: Tensor) -> Tensor:
        """(N, V, D) -> (N, K, D)."""
        if not torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(self.perceiver.latents.dtype)
        latents: Tensor = self.perceiver(tokens)
        return latents

    def _media_of_call(
        self,
        input_ids: Tensor,
        images: Tensor | None,
        images_per_sample: Counts | None,
        vision_x: Tensor | None,
        media: EncodedMedia | None,
        preceding_tags: Tensor | None = None,
        *,
        features: Tensor | None = None,
        keep_graph: bool = False,
        check: bool = True,
    ) -> EncodedMedia:
        """The media of a call, from whichever form they were given in, checked against the tags."""
        if sum(form is not None for form in (images, vision_x, media, features)) > 1:
            raise UserError(
                "images, features, vision_x and media: expected one of them, got several"
            )
        if images_per_sample is None and (images is not None or features is not None):
            raise UserError("images: expected images_per_sample beside it, got none")
        tags = None
        if check or vision_x is not None:
            tags = count_tags(input_ids, self.media_token_id, preceding_tags)[:, -1].tolist()
        if vision_x is not None:
            images, images_per_sample = unpad_openflamingo(vision_x, cast(list[int], tags))
        if media is None:
            counts = [0] * input_ids.shape[0] if images_per_sample is None else images_per_sample
            media = self.encode(
                images, counts, features=features, keep_graph=keep_graph, device=input_ids.device
            )
        if len(media.images_per_sample) != input_ids.shape[0]:
            raise UserError(
                f"media: expected {input_ids.shape[0]} samples, as in input_ids, "
                f"got {len(media.images_per_sample)}"
            )
        if tags is not None:
            check_tags(tags, media.images_per_sample)
        return media

    # ---- text

    def _before_lm(self, _lm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tells the context which positions the LM is about to see."""
        if not self._context.is_open:
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise UserError("inputs_embeds: expected input_ids, the tags are counted in them")
        held = positions_held(cache_in(kwargs))
        self._context.begin_pass(ids.shape[0], ids.shape[1], held)

    def _keep_apart(self, *documents: Any) -> tuple[Tensor | None, Tensor, Documents | None]:
        """What the LM is told of packed documents; see `Packing.told`."""
        if self._packing is None:
            raise UserError("document_index: expected a call of allow_packing first")
        return self._packing.told(*documents)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        images: Tensor | None = None,
        images_per_sample: Counts | None = None,
        vision_x: Tensor | None = None,
        *,
        media: EncodedMedia | None = None,
        features: Tensor | None = None,
        document_index: Tensor | None = None,
        document_bounds: Tensor | None = None,
        document_lengths: Sequence[int] | None = None,
        right_padded: bool = False,
        preceding_tags: Tensor | None = None,
        loss_reduction: LossReduction = "mean",
        target_positions: Tensor | None = None,
        target_groups: Sequence[int] | None = None,
        keep_graph: bool = False,
        check: bool = True,
        past_key_values: Any = None,
        cache: Any = None,
        use_cache: bool = False,
        lang_x: Tensor | None = None,
        **lm_arguments: Any,
    ) -> CausalOutput:
        """Logits, and the loss where there are labels; arguments: see the class."""
        ids = _one_of(input_ids, lang_x)
        cache = one_cache(cache, past_key_values)
        media = self._media_of_call(
            ids,
            images,
            images_per_sample,
            vision_x,
            media,
            preceding_tags,
            features=features,
            keep_graph=keep_graph,
            check=check,
        )
        text_time = count_tags(ids, self.media_token_id, preceding_tags)
        documents = None
        if document_index is not None:
            text_time = own_tags(text_time, document_index)
            attention_mask, lm_arguments["position_ids"], documents = self._keep_apart(
                document_index, document_bounds, document_lengths
            )
        lm_arguments |= cache_argument(self.lang_encoder, cache)
        with (
            self._context.open(media.latents, text_time, target_positions=target_positions),
            text_rows(right_padded=right_padded, documents=documents),
            self._head_loss.asked(
                labels, target_positions, loss_reduction, target_groups
            ) as of_logits,
        ):
            out = self.lang_encoder(
                input_ids=ids, attention_mask=attention_mask, use_cache=use_cache, **lm_arguments
            )
            return CausalOutput(*of_logits(out.logits), cache_in(out) if use_cache else None)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        images: Tensor | None = None,
        images_per_sample: Counts | None = None,
        vision_x: Tensor | None = None,
        *,
        media: EncodedMedia | None = None,
        lang_x: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Continues left-padded prompts; `options` are those of transformers' `generate`.

        Greedy with a key-value cache unless asked otherwise; ends at `<|endofchunk|>`. Beams,
        sampling and several returned sequences take the media of their prompt along.
        """
        ids = _one_of(input_ids, lang_x)
        options = generation.complete_options(
            options, eoc_token_id=self.eoc_token_id, pad_token_id=self.pad_token_id
        )
        if attention_mask is None:
            attention_mask = (ids != self.pad_token_id).long()
        media = self._media_of_call(ids, images, images_per_sample, vision_x, media)
        text_time = count_tags(ids, self.media_token_id)
        with self._context.open(media.latents, text_time, generating=True):
            return cast(Any, self.lang_encoder).generate(
                input_ids=ids, attention_mask=attention_mask, **options
            )


def _one_of(input_ids: Tensor | None, lang_x: Tensor | None) -> Tensor:
    if (input_ids is None) == (lang_x is None):
        raise UserError("input_ids: expected it, or its other name lang_x, got none or both")
    return cast(Tensor, lang_x if input_ids is None else input_ids)
