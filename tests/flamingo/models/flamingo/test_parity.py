"""Our numbers against OpenFlamingo's own, on two tiny models, in fp32.

The fixtures' batches are padded with blank images; what is compared are the real image slots.
"""

import pytest
import torch
from torch import Tensor

from flamingo.models.flamingo.media import EncodedMedia
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.loss import find_target_positions
from flamingo.modules.vision import encode_images
from tests.flamingo.models.flamingo.parity_case import ParityCase, normal, padded, ragged

STREAMS = ("mmc4", "laion")
FORMS = ("ragged", "padded")


def far(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference."""
    assert ours.shape == theirs.shape
    return (ours.detach() - theirs).abs().max().item()


def relative(ours: Tensor | None, theirs: Tensor) -> float:
    assert ours is not None
    return ((ours - theirs).norm() / theirs.norm()).item()


def media_of(parity: ParityCase, model: Flamingo, stream: str, form: str) -> dict[str, object]:
    """The images of a stream as arguments."""
    images, counts = parity.images(stream)
    if form == "padded":
        return {"vision_x": padded(images, counts)}
    return {"images": images, "images_per_sample": torch.tensor(counts)}


@pytest.mark.parametrize("stream", STREAMS)
def test_vision_tokens_equal_the_references(parity, parity_model, stream):
    images, counts = parity.images(stream)
    theirs = parity.forward[f"{stream}.vision_tokens"].unflatten(0, (len(counts), -1))
    theirs = torch.cat([row[:n] for row, n in zip(theirs, counts, strict=True)])
    ours = encode_images(parity_model.vision_encoder, images, chunk=3)
    assert far(ours, theirs) < 5e-5


@pytest.mark.parametrize("stream", STREAMS)
def test_latents_equal_the_references(parity, parity_model, stream):
    images, counts = parity.images(stream)
    media = parity_model.encode(images, counts)
    ours = torch.cat([row[:n] for row, n in zip(media.latents, counts, strict=True)])
    assert far(ours, parity.real_slots(f"{stream}.resampler")) < 5e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", STREAMS)
def test_logits_loss_and_gradients_equal_the_references(parity, parity_model, stream, form):
    data = parity.forward
    ids, mask, labels = (data[f"{stream}.{x}"] for x in ("input_ids", "attention_mask", "labels"))
    out = parity_model(ids, mask, labels, **media_of(parity, parity_model, stream, form))
    assert far(parity.columns(out.logits), data[f"{stream}.logits"]) < 5e-5
    assert abs(out.loss.item() - data[f"{stream}.loss"].item()) < 1e-5

    out.loss.backward()
    parameters = dict(parity_model.named_parameters())
    for key, theirs in data.items():
        if key.startswith(f"{stream}.grad_media_rows."):
            assert relative(parity_model.media_tokens.input_rows.grad, theirs) < 1e-4
        elif key.startswith(f"{stream}.grad."):
            name = key.removeprefix(f"{stream}.grad.")
            assert relative(parameters[name].grad, theirs) < 1e-4, name
    for name, norm in parity.meta[f"{stream}.grad_norms"].items():
        if "embed" in name:  # theirs is of the whole matrix, before its mask
            continue
        ours = parameters[name].grad.double().norm().item()
        assert ours == pytest.approx(norm, rel=1e-4), name


@pytest.mark.parametrize("stream", STREAMS)
def test_loss_over_target_positions_only_is_the_same(parity, parity_model, stream):
    data = parity.forward
    ids, mask, labels = (data[f"{stream}.{x}"] for x in ("input_ids", "attention_mask", "labels"))
    media = media_of(parity, parity_model, stream, "ragged")
    positions = find_target_positions(labels)
    out = parity_model(ids, mask, labels, **media, target_positions=positions, loss_reduction="sum")
    assert out.logits.shape[0] == positions.numel() == out.num_targets.item()
    assert abs(out.loss.item() / out.num_targets.item() - data[f"{stream}.loss"].item()) < 1e-5


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_scores_equal_the_references(parity, parity_model, use_cache):
    data = parity.generate
    out = parity_model.generate(
        data["input_ids"],
        data["attention_mask"],
        **prompt_media(parity),
        max_new_tokens=8,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert out.sequences.tolist() == data["greedy"].tolist()
    scores = torch.stack(out.scores, dim=1)
    assert far(parity.columns(scores), data["greedy_scores"]) < 1e-4


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_equal_the_references(parity, parity_model, use_cache):
    data = parity.generate
    ids = parity_model.generate(
        data["input_ids"],
        data["attention_mask"],
        **prompt_media(parity),
        max_new_tokens=8,
        num_beams=3,
        use_cache=use_cache,
    )
    assert ids.tolist() == data["beam3"].tolist()


def test_greedy_scores_notice_a_missing_image(parity, parity_model):
    data = parity.generate
    media = prompt_media(parity)
    blank = {name: torch.zeros_like(x) for name, x in media.items() if isinstance(x, Tensor)}
    if "media" in media:
        latents = torch.zeros_like(media["media"].latents)
        blank = {"media": EncodedMedia(latents=latents, images_per_sample=(2, 1))}
    out = parity_model.generate(
        data["input_ids"],
        data["attention_mask"],
        **media | blank,
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = torch.stack(out.scores, dim=1)
    assert far(parity.columns(scores), data["greedy_scores"]) > 1e-2


def test_text_behind_encoded_media_attends_to_the_last_image(parity, parity_model):
    """OpenFlamingo's cache_media: the media of a first prompt, other text after it."""
    data = parity.generate
    images, counts = parity.prompt_images()
    media = parity_model.encode(images, counts)
    first = EncodedMedia(latents=media.latents[:1], images_per_sample=(2,))
    out = parity_model(data["cached_media_ids"], media=first, preceding_tags=torch.tensor([2]))
    assert far(parity.columns(out.logits), data["cached_media_logits"]) < 5e-5


def prompt_media(parity: ParityCase) -> dict[str, object]:
    images, counts = parity.prompt_images()
    return {"vision_x": padded(images, counts)}


def labels_of(ids: Tensor, parity: ParityCase, stream: str) -> Tensor:
    """The reference's rule: media and padding never; in mmc4 only from an image to its end."""
    image, eoc = parity.meta["media_token_id"], parity.meta["eoc_token_id"]
    labels = ids.masked_fill((ids == image) | (ids == parity.meta["pad_token_id"]), -100)
    if stream == "mmc4":
        for row, targets in zip(ids.tolist(), labels, strict=True):
            inside = False
            for i, token in enumerate(row):
                inside = inside or token == image
                if not inside:
                    targets[i] = -100
                inside = inside and token != eoc
    return labels


def test_six_training_steps_equal_the_references(parity):
    """AdamW, weight decay on cross-attention only, warm-up from 0, clipping at 1."""
    model = parity.build_model().train()
    theirs, data = parity.meta["train_steps"], parity.tensors("train_steps")
    hyper = theirs["hyper"]
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in trainable if "gated_cross_attn" in n], "weight_decay": 0.1},
        {"params": [p for n, p in trainable if "gated_cross_attn" not in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=hyper["lr"], betas=hyper["betas"], eps=hyper["eps"])
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = hyper["lr"] * min(1.0, step / hyper["warmup"])
        optimizer.zero_grad()
        for stream, seed in (("laion", 200), ("mmc4", 100)):
            ids = data[f"{stream}.{step}.input_ids"]
            counts = parity.tags(ids)
            images = (
                normal(seed + step, 4, 3, 64, 64)
                if stream == "laion"
                else ragged(seed + step, counts)
            )
            out = model(
                ids,
                data[f"{stream}.{step}.attention_mask"],
                labels_of(ids, parity, stream),
                images=images,
                images_per_sample=counts,
            )
            assert abs(out.loss.item() - theirs[f"losses_{stream}"][step]) < 1e-4
            (out.loss * hyper[f"loss_multiplier_{stream}"]).backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in trainable], hyper["clip"])
        assert abs(norm.item() - theirs["grad_norms"][step]) < 1e-4
        optimizer.step()
