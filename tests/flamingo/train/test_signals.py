"""What a signal asks of a run, and that it is asked of all ranks."""

import os
import signal
import threading

import pytest

from flamingo.train.signals import StopRequest
from mmdata.errors import EXIT_INTERRUPTED, EXIT_REQUEUE


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def own_interrupts():
    """As in a shell; a test runner that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestStopRequest:
    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (signal.SIGTERM, EXIT_REQUEUE),
            (signal.SIGUSR1, EXIT_REQUEUE),
            (signal.SIGINT, EXIT_INTERRUPTED),
        ],
    )
    def test_notes_a_signal_and_lets_the_step_end(self, number: int, code: int) -> None:
        with StopRequest() as stop:
            assert stop.decide(stop.votes()) == 0
            send(number)
            assert stop.requested == code
            assert stop.decide(stop.votes()) == code

    def test_a_second_interrupt_does_not_wait(self) -> None:
        with StopRequest():
            send(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)

    def test_an_interrupt_wins_over_a_requeue(self) -> None:
        with StopRequest() as stop:
            send(signal.SIGTERM)
            send(signal.SIGINT)
            assert stop.requested == EXIT_INTERRUPTED
        assert StopRequest.decide([3.0, 1.0]) == EXIT_INTERRUPTED
        assert StopRequest.decide([1.0, 0.0]) == EXIT_REQUEUE

    def test_gives_the_handlers_back(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with StopRequest():
            assert signal.getsignal(signal.SIGTERM) != before
        assert signal.getsignal(signal.SIGTERM) == before

    def test_leaves_signals_alone_in_another_thread(self) -> None:
        found = []

        def run() -> None:
            with StopRequest() as stop:
                found.append(stop.requested)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert found == [0]
