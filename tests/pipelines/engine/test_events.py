"""Signs of life: of work that yields too seldom, and of work that cannot yield at all."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines.engine import events
from pipelines.engine.events import Alive, LongSteps, RateLimit, one_step


@pytest.fixture(autouse=True)
def quick_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SIGN_SECONDS", 0.1)


def run(compute: Callable[[], object]) -> tuple[int, object]:
    """(signs of life, what came of a computation)."""

    def of_unit(unit: int) -> object:
        return compute()

    came = list(one_step(of_unit).watched(0))
    (result,) = [event for event in came if not isinstance(event, Alive)]
    assert came[-1] is result
    return len(came) - 1, result


def compute_for(seconds: float) -> str:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return "done"


def test_a_sign_is_due_once_in_its_time() -> None:
    limit = RateLimit()
    assert not limit.due()
    time.sleep(0.11)
    assert limit.due()
    assert not limit.due()


def test_what_computes_is_alive() -> None:
    signs, result = run(lambda: compute_for(0.5))
    assert result == "done"
    assert signs >= 2


def test_what_is_soon_done_needs_no_sign() -> None:
    assert run(lambda: 7) == (0, 7)


def test_an_error_is_raised_where_the_result_would_be() -> None:
    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        run(fail)


def test_what_waits_for_ever_is_not_alive() -> None:
    """It may give one sign for what it did before it hung."""
    release = threading.Event()
    threading.Timer(1.5, release.set).start()
    signs, result = run(lambda: release.wait(10))
    assert result is True
    assert signs <= 2


def two_steps(unit: int) -> Iterator[object]:
    yield threading.get_ident()
    yield compute_for(0.5)
    raise KeyError(unit)


def test_results_of_long_steps_come_in_order_with_signs_between_them() -> None:
    events = LongSteps(two_steps).watched(3)
    thread = next(events)
    assert thread != threading.get_ident()
    assert isinstance(next(events), Alive)
    while (came := next(events)) != "done":
        assert isinstance(came, Alive)
    with pytest.raises(KeyError, match="3"):
        next(events)


def test_long_steps_in_this_process_need_no_thread() -> None:
    assert next(LongSteps(two_steps)(3)) == threading.get_ident()
