"""Image-text similarities as CLIP gives them: cosines of open_clip's features, MMC4's own numbers.

An image goes through the model's evaluation transform, a sentence through its tokenizer (cut at
its context length, 77 for CLIP), and their features' cosine is rounded to 6 decimals. It uses
torch, and loads it when a scorer is made.

Batches always have one size, the last one filled up: a row's features then do not depend on its
neighbours, while other batch sizes move them by up to 3e-7. On a CPU one thread computes, so that
the bytes do not depend on the number of cores; more processes use more cores. On a GPU the model
runs under float16 autocast (cosines within 2e-4 of float32, bfloat16 1.4e-3: measured on random
ViT-B-32 weights), and a batch that overflows is computed again in float32. There a batch is only
queued when it is started, so that the next one is prepared, and copied there, while it is computed.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmdata.errors import MMDataError, UserError, words_of
from mmdata.images import ImageRejected
from mmdata.images.pillow import PILLOW_ERRORS
from pipelines.clip.weights import checked_names, load_network, sha256_of_weights, similarity_source
from pipelines.engine.devices import Device, choose_device
from schemas.reasons import ImageDrop

Pixels = NDArray[np.uint8]
"""(n, height, width, 3): images as the model wants them, not yet normalised."""
Tokens = NDArray[np.int32]
"""(n, context length)"""
Features = NDArray[np.float32]
"""(n, width of the joint space), of any length."""
Pending = Callable[[], Features]
"""Waits for features that may still be under way."""

DECIMALS = 6


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
        model, pretrained = checked_names(model, pretrained)
        network = load_network(model, pretrained)
        digest = sha256_of_weights(network)
        self._network = network.to(choose_device(device, None, flag="--clip-device")).eval()
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
        self._uploads = _stream(device)

    def start_images(self, pixels: Pixels) -> Pending:
        """Start to compute the features of preprocessed images, in batches."""
        return self._in_batches(pixels, self._encode_images)

    def start_tokens(self, tokens: Tokens) -> Pending:
        """Start to compute the features of tokenised sentences, in batches."""
        return self._in_batches(tokens, self._encode_tokens)

    def image_features(self, pixels: Pixels) -> Features:
        """Features of preprocessed images, in batches."""
        return self.start_images(pixels)()

    def token_features(self, tokens: Tokens) -> Features:
        """Features of tokenised sentences, in batches."""
        return self.start_tokens(tokens)()

    def text_features(self, texts: Sequence[str]) -> Features:
        """Features of sentences, in batches."""
        return self.token_features(self.front.tokens(texts))

    def similarity(self, images: Sequence[bytes], texts: Sequence[str]) -> NDArray[np.float64]:
        """The (n_images, n_sentences) matrix of encoded images and sentences."""
        if not images or not texts:
            return np.zeros((len(images), len(texts)))
        pixels = np.stack([self.front.pixels(data) for data in images])
        return cosines(self.image_features(pixels), self.text_features(texts))

    def _in_batches(self, rows: NDArray[Any], encode: Callable[[Any], Any]) -> Pending:
        size, pending = self.spec.batch_size, []
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            pending.append((self._start(filled(batch, size), encode), len(batch)))

        def wait() -> Features:
            parts = [one()[:count] for one, count in pending]
            return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

        return wait

    def _start(self, batch: NDArray[Any], encode: Callable[[Any], Any]) -> Pending:
        """Start one full batch, in mixed precision on a GPU."""
        import torch

        with self._computing():
            tensor = self._brought(torch.from_numpy(batch))
            with torch.autocast(self.spec.device, torch.float16, enabled=self._on_gpu):
                features = _read_back(encode(tensor).float())

        def wait() -> Features:
            found: Features = features().numpy()
            if self._on_gpu and not np.isfinite(found).all():
                with self._computing():
                    found = encode(tensor).float().cpu().numpy()
            if not np.isfinite(found).all():
                raise ScoringError(f"{self.spec.model}: its features are not finite numbers")
            return found

        return wait

    @property
    def _on_gpu(self) -> bool:
        return self.spec.device == "cuda"

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute without gradients, with one thread on a CPU.

        Raises:
            ScoringError: the GPU's memory does not hold it.
        """
        import torch

        try:
            with torch.inference_mode(), _one_thread(on=not self._on_gpu):
                yield
        except torch.OutOfMemoryError as error:
            raise ScoringError(
                f"the GPU's memory does not hold a batch of {self.spec.batch_size}: lower "
                "--clip-batch-size or --clip-actors"
            ) from error

    def _brought(self, batch: Any) -> Any:
        """A batch on the device; a GPU is sent it beside what it computes."""
        import torch

        if self._uploads is None:
            return batch
        with torch.cuda.stream(self._uploads):
            there = batch.pin_memory().to("cuda", non_blocking=True)
        own = torch.cuda.current_stream()
        own.wait_stream(self._uploads)
        there.record_stream(own)
        return there

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


def _stream(device: Device) -> Any:
    """On which batches go to a GPU; None for a CPU."""
    import torch

    return torch.cuda.Stream() if device == "cuda" else None


def _read_back(features: Any) -> Callable[[], Any]:
    """What waits for a tensor and gives it on the CPU; for nothing that is queued after it."""
    import torch

    here = features.to("cpu", non_blocking=True)  # from a GPU into pinned memory
    if features.device.type == "cpu":
        return lambda: here
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Any:
        copied.synchronize()
        return here

    return wait


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
