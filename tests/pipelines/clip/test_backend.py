"""A GPU that is a task's own is fed ahead: counted on a CPU that says it is one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.clip import backend
from pipelines.clip.backend import AHEAD, LocalBackend, describe_clip, make_pool
from pipelines.clip.model import ClipScorer, Features, Pending
from pipelines.clip.options import ClipOptions
from pipelines.clip.scoring import DocumentScorer, Item
from pipelines.engine import devices
from tests.clip_factory import make_clip
from tests.corpus import picture

pytest.importorskip("open_clip")
BATCH = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def scorer(model: str) -> ClipScorer:
    return ClipScorer(model, batch_size=BATCH)


class Queued:
    """A scorer whose batches are computed when they are waited for, at the latest.

    Attributes:
        ahead: at each wait, batches that were started after the one that is waited for.
    """

    def __init__(self, scorer: ClipScorer) -> None:
        self.spec = replace(scorer.spec, device="cuda")
        self._scorer = scorer
        self._started = 0
        self.ahead: list[int] = []

    def start_images(self, pixels: Any) -> Pending:
        return self._start(self._scorer.image_features, pixels)

    def start_tokens(self, tokens: Any) -> Pending:
        return self._start(self._scorer.token_features, tokens)

    def _start(self, compute: Callable[[Any], Features], batch: Any) -> Pending:
        self._started += 1
        number = self._started

        def wait() -> Features:
            self.ahead.append(self._started - number)
            return compute(batch)

        return wait


def scored(local: LocalBackend, scorer: ClipScorer) -> list[Any]:
    """The matrices of 12 documents of two pictures and two sentences each."""
    front = scorer.front
    items = [
        Item(n, [front.pixels(picture(2 * n + k)) for k in (0, 1)], [f"One {n}.", "Two."], 1)
        for n in range(12)
    ]
    return [matrix for _, matrix in DocumentScorer(local, front, BATCH).score(items)]


def test_a_gpu_of_ones_own_is_fed_ahead_and_a_cpu_is_not(scorer: ClipScorer) -> None:
    on_cpu = LocalBackend(scorer)
    queued = Queued(scorer)
    on_gpu = LocalBackend(queued)  # type: ignore[arg-type]
    plain = scored(on_cpu, scorer)
    for one, other in zip(scored(on_gpu, scorer), plain, strict=True):
        assert np.array_equal(one, other)
    assert on_cpu.ahead == 0
    fed, last = queued.ahead[:-AHEAD], queued.ahead[-AHEAD:]
    assert len(fed) == 24 - AHEAD
    assert min(fed) >= AHEAD - 1
    assert last[-1] == 0
    for local in (on_cpu, on_gpu):
        assert 0 < local.busy_seconds <= local.seconds


@pytest.mark.parametrize(("gpus", "device", "actors"), [(3, "cuda", 3), (0, "cpu", 0)])
def test_the_device_is_that_of_the_cluster_not_of_who_starts_the_run(
    model: str, monkeypatch: pytest.MonkeyPatch, gpus: int, device: str, actors: int
) -> None:
    monkeypatch.setattr(devices, "_of_cluster", lambda address: gpus)
    spec = describe_clip(ClipOptions(clip_model=model), "host:1")
    assert spec.device == device
    pool = make_pool(spec, actors=None, workers=2, address="host:1")
    assert len(pool.names if pool else ()) == actors
    backend._scorer.cache_clear()


def test_batches_started_together_have_the_features_of_pictures_alone(scorer: ClipScorer) -> None:
    pixels = np.stack([scorer.front.pixels(picture(n)) for n in range(2 * BATCH + 1)])
    one_by_one = [scorer.image_features(pixels[n : n + 1]) for n in range(len(pixels))]
    started = [scorer.start_images(pixels[n : n + BATCH]) for n in range(0, len(pixels), BATCH)]
    assert np.array_equal(np.concatenate([wait() for wait in started]), np.concatenate(one_by_one))
