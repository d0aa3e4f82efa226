"""The CLIP of a run: what it is, and who computes its features.

The driver loads it once, to know that it works and to put what decides its numbers into the
plan. Then either every worker holds it (on a CPU), or a pool of actors does (on GPUs, or as asked):
a worker decodes, resizes and tokenises, so that a GPU's process only computes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from mmdata.versions import clip_versions
from pipelines.clip.model import (
    ClipScorer,
    ClipSpec,
    Features,
    FrontEnd,
    Pending,
    Pixels,
    ScoringError,
    Tokens,
)
from pipelines.clip.options import ClipOptions
from pipelines.engine.actors import ActorPool, Meter, actor_calls
from pipelines.engine.devices import Device, choose_device, num_gpus

#: Batches that a task has in flight at the actors, or at a GPU of its own.
AHEAD = 4
#: Rough rates of a CLIP of usual size, on one core and on a GPU.
_IMAGES_PER_SECOND = 10.0
_GPU_IMAGES_PER_SECOND = 300.0


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scorer has done.

    Attributes:
        images: that went through it.
        sentences: likewise.
        busy_seconds: that it computed.
        seconds: from the first batch to the end of the last.
    """

    images: int
    sentences: int
    busy_seconds: float
    seconds: float


class LocalBackend:
    """The model in this process: a CPU has computed when the call returns, a GPU is fed ahead."""

    def __init__(self, scorer: ClipScorer) -> None:
        self._scorer = scorer
        self._meter = Meter()
        self.ahead = AHEAD if scorer.spec.device == "cuda" else 0

    def image_features(self, pixels: Pixels) -> Pending:
        return self._timed(self._scorer.start_images, pixels)

    def token_features(self, tokens: Tokens) -> Pending:
        return self._timed(self._scorer.start_tokens, tokens)

    @property
    def busy_seconds(self) -> float:
        """With at least one batch in hand: started, and not yet taken."""
        return self._meter.report().busy_seconds

    @property
    def seconds(self) -> float:
        """From the first batch to the end of the last."""
        return self._meter.report().seconds

    def _timed(self, start: Callable[[Any], Pending], batch: NDArray[Any]) -> Pending:
        if not self.ahead:
            with self._meter:
                features = start(batch)()
            return lambda: features
        self._meter.begin()
        pending = start(batch)

        def wait() -> Features:
            try:
                return pending()
            finally:
                self._meter.end()

        return wait


class PoolBackend:
    """Actors that hold the model; each task starts with another one and takes turns."""

    ahead = AHEAD
    #: What is busy are the actors: they are asked at the end of the run.
    busy_seconds = seconds = 0.0

    def __init__(self, names: Sequence[str], first: int) -> None:
        self._calls = actor_calls(names)
        self._turn = first

    def image_features(self, pixels: Pixels) -> Pending:
        return self._next("image_features", pixels)

    def token_features(self, tokens: Tokens) -> Pending:
        return self._next("token_features", tokens)

    def _next(self, method: str, batch: NDArray[Any]) -> Pending:
        call = self._calls[self._turn % len(self._calls)]
        self._turn += 1
        return call(method, batch)


@lru_cache(maxsize=1)
def _scorer(model: str, pretrained: str | None, device: Device, batch_size: int) -> ClipScorer:
    """One model a process, however many units it scores."""
    return ClipScorer(model, pretrained, device, batch_size)


def load_scorer(spec: ClipSpec) -> ClipScorer:
    """The CLIP of a run, in this process.

    Raises:
        ScoringError: it is not the same here.
    """
    scorer = _scorer(spec.model, spec.pretrained, spec.device, spec.batch_size)
    if scorer.spec.weights_sha256 != spec.weights_sha256:
        raise ScoringError(
            f"{spec.model}: other weights here than where the run was started; install the same "
            "on every machine"
        )
    return scorer


@lru_cache(maxsize=1)
def front_end(spec: ClipSpec) -> FrontEnd:
    """The preprocessing of a run's CLIP, in this process."""
    return FrontEnd(spec)


class ClipActor:
    """What an actor of the pool holds; several batches may be on their way through it."""

    def __init__(self, spec: ClipSpec) -> None:
        self._scorer = load_scorer(spec)

    def image_features(self, pixels: Pixels) -> Features:
        return self._scorer.image_features(pixels)

    def token_features(self, tokens: Tokens) -> Features:
        return self._scorer.token_features(tokens)


def describe_clip(options: ClipOptions, address: str | None) -> ClipSpec:
    """Load the CLIP once, to know that it works and what it is.

    Args:
        options: of the command; `clip_model` is set.
        address: of a cluster.

    Raises:
        UserError: the model cannot be had, or there is no such device.
        MissingExtraError: torch or open_clip is not installed.
    """
    clip_versions()
    device = choose_device(options.clip_device, address, flag="--clip-device")
    model, pretrained = str(options.clip_model), options.clip_pretrained
    scorer = _scorer(model, pretrained, "cpu", options.clip_batch_size)
    return replace(scorer.spec, device=device)


def images_per_second(clip: ClipSpec | None, without: float) -> float:
    """A rough rate of one core, to decide whether a Ray is worth starting.

    Args:
        clip: that scores; None where nothing does.
        without: images a second of the same work without a CLIP.
    """
    if clip is None:
        return without
    return min(without, _GPU_IMAGES_PER_SECOND if clip.device == "cuda" else _IMAGES_PER_SECOND)


def clip_byte_options(spec: ClipSpec) -> dict[str, Any]:
    """What of a CLIP changes the shards' bytes, without paths."""
    return {
        "clip": spec.source,
        "clip_weights_sha256": spec.weights_sha256,
        "clip_preprocess": dict(spec.preprocess),
        "clip_context_length": spec.context_length,
        "clip_batch_size": spec.batch_size,
        "clip_device": spec.device,
    }


def make_pool(
    spec: ClipSpec, *, actors: int | None, workers: int, address: str | None
) -> ActorPool | None:
    """The actors that the tasks of a run call; None where they score in their own process.

    Args:
        spec: the CLIP.
        actors: as asked; None for one a GPU of this machine or cluster, and none on a CPU.
        workers: of the run; 0 without an address is this process.
        address: of a cluster.
    """
    if workers == 0 and address is None:
        return None
    _scorer.cache_clear()  # the model is not needed here: what `describe_clip` loaded
    if actors is None and spec.device == "cuda":
        actors = max(1, num_gpus(address))
    if not actors:
        return None
    size = dict(spec.preprocess)["size"]
    height, width = size if isinstance(size, tuple) else (size, size)
    tasks = 2 * max(workers, 1)
    return ActorPool(
        holder=ClipActor,
        argument=spec,
        names=tuple(f"clip-{number}" for number in range(actors)),
        gpu=spec.device == "cuda",
        bytes_in_flight=(AHEAD + 2) * 3 * height * width * spec.batch_size * tasks,
    )


def open_backend(spec: ClipSpec, pool: Sequence[str], turn: int) -> LocalBackend | PoolBackend:
    """In a task: the pool, or the model in its own process.

    Args:
        spec: the CLIP.
        pool: names of the actors; empty for none.
        turn: of the task, so that tasks begin with different actors.
    """
    return PoolBackend(pool, turn) if pool else LocalBackend(load_scorer(spec))


def total_scored(parts: Sequence[Scored], pool: ActorPool | None) -> Scored | None:
    """What a run has scored; None where nothing was.

    Args:
        parts: what its tasks told.
        pool: whose actors know how busy they were; None where the tasks scored themselves.
    """
    if not parts:
        return None
    busy: list[tuple[float, float]] = [(part.busy_seconds, part.seconds) for part in parts]
    if pool is not None:
        busy = [(report.busy_seconds, report.seconds) for report in pool.reports]
    return Scored(
        images=sum(part.images for part in parts),
        sentences=sum(part.sentences for part in parts),
        busy_seconds=sum(one for one, _ in busy),
        seconds=sum(other for _, other in busy),
    )
