"""Image-text similarities as CLIP gives them: cosines of open_clip's features, MMC4's own numbers.

An image goes through the model's evaluation transform, a sentence through its tokenizer (cut at
its context length, 77 for CLIP), and their features' cosine is rounded to 6 decimals. The only
module of the core that uses torch, and it loads it when a scorer is made.

Batches always have one size, the last one filled up: a row's features then do not depend on its
neighbours, while other batch sizes move them by up to 3e-7. On a CPU one thread computes, so that
the bytes do not depend on the number of cores; more processes use more cores. On a GPU the model
runs under float16 autocast (cosines within 2e-4 of float32, bfloat16 1.4e-3: measured on random
ViT-B-32 weights), and a batch that overflows is computed again in float32.
"""

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmdata.errors import MMDataError, UserError, words_of
from mmdata.images import ImageRejected
from mmdata.images.pillow import PILLOW_ERRORS
from schemas.reasons import ImageDrop

Device = Literal["cpu", "cuda"]
Pixels = NDArray[np.uint8]
"""(n, height, width, 3): images as the model wants them, not yet normalised."""
Tokens = NDArray[np.int32]
"""(n, context length)"""
Features = NDArray[np.float32]
"""(n, width of the joint space), of any length."""

DECIMALS = 6
_LOCAL = "local-dir:"
_HUB = "hf-hub:"
#: What open_clip raises for a model or weights that cannot be had: many kinds, one meaning.
_LOAD_ERRORS = (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError, ImportError)


class ScoringError(MMDataError):
    """The model could not score a batch; the text says what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """A CLIP that was found to load, as processes tell each other of it.

    Attributes:
        model: name of open_clip, `local-dir:PATH` or `hf-hub:NAME`.
        pretrained: tag of open_clip or path of the weights; None where the model brings them.
        device: where it computes.
        batch_size: images, and sentences, in every batch.
        weights_sha256: of the weights as loaded.
        preprocess: open_clip's settings of the image transform.
        context_length: tokens of a sentence.
        source: `similarity_source` of what it scores.
    """

    model: str
    pretrained: str | None
    device: Device
    batch_size: int
    weights_sha256: str
    preprocess: tuple[tuple[str, Any], ...]
    context_length: int
    source: str


class FrontEnd:
    """What a CLIP does to images and sentences before its weights see them; holds no weights."""

    def __init__(self, spec: ClipSpec) -> None:
        self._transform = _pixel_transform(dict(spec.preprocess))
        self._tokenizer = _tokenizer(spec.model)
        self._context_length = spec.context_length

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        """An encoded image as (height, width, 3), resized and cropped by open_clip's transform.

        Raises:
            ImageRejected: it cannot be decoded.
        """
        try:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(self._transform(image.convert("RGB")), dtype=np.uint8)
        except PILLOW_ERRORS as error:
            detail = f"{type(error).__name__}: {words_of(error)}"
            raise ImageRejected(ImageDrop.UNREADABLE, detail) from error

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Sentences as (n, context length), cut or filled up."""
        rows = self._tokenizer(list(texts), context_length=self._context_length)
        tokens: Tokens = rows.numpy().astype(np.int32)
        return tokens


class ClipScorer:
    """A CLIP with its weights: features of images and sentences, in batches of one size.

    Attributes:
        spec: what was loaded.
        front: its preprocessing.

    Raises:
        UserError: the model or its weights cannot be had, or do not go together.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        device: Device = "cpu",
        batch_size: int = 64,
    ) -> None:
        model, pretrained = _normalised(model, pretrained)
        network = _load(model, pretrained)
        digest = _weights_sha256(network)
        self._network = network.to(_checked_device(device)).eval()
        preprocess: dict[str, Any] = network.visual.preprocess_cfg
        self.spec = ClipSpec(
            model=model,
            pretrained=pretrained,
            device=device,
            batch_size=batch_size,
            weights_sha256=digest,
            preprocess=tuple((key, _frozen(value)) for key, value in sorted(preprocess.items())),
            context_length=int(getattr(network, "context_length", 0) or 77),
            source=similarity_source(model, pretrained, digest),
        )
        self.front = FrontEnd(self.spec)
        _check_vocabulary(network, self.front, model)
        self._scale = _normalisation(preprocess, device)

    def image_features(self, pixels: Pixels) -> Features:
        """Features of preprocessed images, in batches."""
        return self._in_batches(pixels, self._encode_images)

    def token_features(self, tokens: Tokens) -> Features:
        """Features of tokenised sentences, in batches."""
        return self._in_batches(tokens, self._encode_tokens)

    def text_features(self, texts: Sequence[str]) -> Features:
        """Features of sentences, in batches."""
        return self.token_features(self.front.tokens(texts))

    def similarity(self, images: Sequence[bytes], texts: Sequence[str]) -> NDArray[np.float64]:
        """The (n_images, n_sentences) matrix of encoded images and sentences."""
        if not images or not texts:
            return np.zeros((len(images), len(texts)))
        pixels = np.stack([self.front.pixels(data) for data in images])
        return cosines(self.image_features(pixels), self.text_features(texts))

    def _in_batches(self, rows: NDArray[Any], encode: Callable[[Any], Any]) -> Features:
        import torch

        size, parts = self.spec.batch_size, []
        with torch.inference_mode(), _one_thread(on=self.spec.device == "cpu"):
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                full = filled(batch, size)
                parts.append(self._encode(full, encode)[: len(batch)])
        features: Features = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        return features

    def _encode(self, batch: NDArray[Any], encode: Callable[[Any], Any]) -> Features:
        """One full batch, in mixed precision on a GPU."""
        import torch

        gpu = self.spec.device == "cuda"
        try:
            tensor = torch.from_numpy(batch)
            if gpu:
                tensor = tensor.pin_memory().to("cuda", non_blocking=True)
            with torch.autocast(self.spec.device, torch.float16, enabled=gpu):
                features: Features = encode(tensor).float().cpu().numpy()
            if gpu and not np.isfinite(features).all():
                features = encode(tensor).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise ScoringError(
                f"the GPU's memory does not hold a batch of {self.spec.batch_size}: lower "
                "--clip-batch-size or --clip-actors"
            ) from error
        if not np.isfinite(features).all():
            raise ScoringError(f"{self.spec.model}: its features are not finite numbers")
        return features

    def _encode_images(self, pixels: Any) -> Any:
        mean, deviation = self._scale
        # The same float operations as torchvision's ToTensor and Normalize.
        images = pixels.permute(0, 3, 1, 2).float().div(255).sub(mean).div(deviation)
        return self._network.encode_image(images)

    def _encode_tokens(self, tokens: Any) -> Any:
        return self._network.encode_text(tokens.long())


def cosines(images: Features, texts: Features) -> NDArray[np.float64]:
    """Cosine similarities, (n_images, n_sentences), rounded to 6 decimals.

    Features that are 0 have no direction: their cosines are 0.
    """
    # Not a BLAS product: that one may add up in another order on other numbers of cores.
    product = np.einsum("id,jd->ij", _unit(images), _unit(texts))
    # Rounding leaves -0.0 where a cosine is a little below 0; adding 0 makes it 0.
    rounded: NDArray[np.float64] = np.clip(product, -1.0, 1.0).round(DECIMALS) + 0.0
    return rounded


def _unit(features: Features) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return wide / np.where(length > 0, length, 1.0)


def filled(batch: NDArray[Any], size: int) -> NDArray[Any]:
    """A batch of exactly `size` rows, the missing ones zero."""
    if len(batch) == size:
        return np.ascontiguousarray(batch)
    full = np.zeros((size, *batch.shape[1:]), batch.dtype)
    full[: len(batch)] = batch
    return full


def similarity_source(model: str, pretrained: str | None, weights_sha256: str) -> str:
    """`clip:<model>/<pretrained>`: a tag by its name, weights from files by their content.

    No path is in it: the same weights at another place give the same shards.
    """
    if model.startswith(_LOCAL):
        model = os.path.basename(model)
    if pretrained is None or os.path.isabs(pretrained):
        pretrained = f"sha256-{weights_sha256[:12]}"
    return f"clip:{model}/{pretrained}"


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> Device:
    """`auto` is the GPU where torch sees one."""
    if wanted != "auto":
        return wanted
    return "cuda" if num_gpus() else "cpu"


def num_gpus() -> int:
    """GPUs that torch sees here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _normalised(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """The names with paths made absolute, so that they mean the same in every process.

    Raises:
        UserError: they do not go together.
    """
    import open_clip

    if model.startswith((_LOCAL, _HUB)):
        if pretrained is not None:
            raise UserError(f"--clip-model {model} brings its weights: leave out --clip-pretrained")
        local = model.startswith(_LOCAL)
        return (_LOCAL + os.path.abspath(model.removeprefix(_LOCAL)) if local else model), None
    given, model = model, model.replace("/", "-")
    if model not in open_clip.list_models():
        raise UserError(
            f"--clip-model {given}: expected a model of open_clip (ViT-L-14, ViT-B-32, ...), "
            "local-dir:PATH or hf-hub:NAME"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained and open_clip.get_pretrained_cfg(model, pretrained):
        return model, pretrained
    if pretrained and os.path.isfile(pretrained):
        return model, os.path.abspath(pretrained)
    known = ", ".join(tags[:8]) + (", ..." if len(tags) > 8 else "")
    raise UserError(
        f"--clip-pretrained {pretrained or ''}: expected a file, or a tag of {model}"
        + (f" ({known})" if known else "")
    )


def _load(model: str, pretrained: str | None) -> Any:
    """The network in float32 on the CPU, with the activation that its weights were trained with."""
    import open_clip

    options: dict[str, Any] = {}
    if known := open_clip.get_pretrained_cfg(model, pretrained) if pretrained else None:
        # open_clip >= 2.29 no longer switches ViT-L-14 to QuickGELU for OpenAI's weights.
        options["force_quick_gelu"] = bool(known.get("quick_gelu", False))
    level = logging.root.manager.disable
    logging.disable()  # open_clip tells the root logger what is raised below
    try:
        return open_clip.create_model(
            model, pretrained=pretrained, require_pretrained=True, weights_only=True, **options
        )
    except _LOAD_ERRORS as error:
        named = f"{model} / {pretrained}" if pretrained else model
        raise UserError(f"CLIP {named}: {' '.join(str(error).split())[:500]}") from error
    finally:
        logging.disable(level)


def _weights_sha256(network: Any) -> str:
    """A hash of all weights by name, the same for any file format that they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        array = np.ascontiguousarray(value.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _checked_device(device: Device) -> str:
    if device == "cuda" and not num_gpus():
        raise UserError("--clip-device cuda: torch sees no GPU here; use cpu")
    return device


def _pixel_transform(preprocess: dict[str, Any]) -> Callable[[Image.Image], Image.Image]:
    """open_clip's evaluation transform up to the pixels: without ToTensor and Normalize."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose

    whole = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    transform: Callable[[Image.Image], Image.Image] = Compose(whole.transforms[:-2])
    return transform


def _tokenizer(model: str) -> Any:
    import open_clip

    return open_clip.get_tokenizer(model)


def _check_vocabulary(network: Any, front: FrontEnd, model: str) -> None:
    """Refuse a tokenizer whose numbers the text tower has no rows for."""
    rows = getattr(network, "vocab_size", None)
    tokens = front.tokens(["\N{GRINNING FACE} a picture, 1!"])
    if rows is not None and int(tokens.max()) >= int(rows):
        raise UserError(
            f"CLIP {model}: its text tower knows {rows} tokens, its tokenizer gives up to "
            f"{int(tokens.max())}: they do not go together"
        )


def _normalisation(preprocess: dict[str, Any], device: Device) -> tuple[Any, Any]:
    import torch

    mean, deviation = (
        torch.tensor(preprocess[key], dtype=torch.float32, device=device).view(-1, 1, 1)
        for key in ("mean", "std")
    )
    return mean, deviation


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@contextmanager
def _one_thread(*, on: bool) -> Iterator[None]:
    """Compute with one thread, as every worker does, and put back what was set before."""
    import torch

    before = torch.get_num_threads()
    if on:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if on:
            torch.set_num_threads(before)
