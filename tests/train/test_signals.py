"""Signals in a library: requests while armed, nothing of ours otherwise, and not in threads."""

import os
import signal
import threading

import pytest

from dvae.train import signals


@pytest.mark.parametrize("number", signals.STOPPING)
def test_the_first_one_is_a_request_and_the_second_an_interrupt(number, monkeypatch) -> None:
    before = signal.getsignal(number)
    with signals.StopRequest() as stop:
        assert signal.getsignal(number) == before
        stop.arm()
        os.kill(os.getpid(), number)
        assert stop.received == number
        os.kill(os.getpid(), number)  # an echo
        monkeypatch.setattr(signals, "_ECHO_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
    assert signal.SIGHUP in signals.STOPPING


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.StopRequest() as stop:
            stop.arm()
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_hears_no_signals_and_needs_none() -> None:
    found = []

    def work():
        with signals.end_at_once(), signals.StopRequest() as stop:
            stop.arm()
            found.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


def test_a_program_puts_everything_back() -> None:
    before = [signal.getsignal(number) for number in signals.STOPPING]
    with signals.end_at_once():
        assert [signal.getsignal(number) for number in signals.STOPPING] != before
        with signals.end_at_once():
            pass
        with signals.StopRequest() as stop:
            stop.arm()
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                if stop.received is not None:
                    break
                threading.Event().wait(0.01)
            assert stop.received == signal.SIGTERM
        signals.renew()
    assert [signal.getsignal(number) for number in signals.STOPPING] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_handler_may_interrupt_another_one() -> None:
    """Two signals at once: the second handler runs while the first one holds the lock."""
    stop = signals.StopRequest()
    stop._armed = True

    def nested():
        with stop._lock:
            stop.take(signal.SIGTERM)

    thread = threading.Thread(target=nested, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert stop.received == signal.SIGTERM
