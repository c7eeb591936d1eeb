"""Signals in the event loop."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from tickertape.process.signals import add_signal_handlers, add_stop_handlers, stop_on_signals


def test_each_signal_is_handled_until_the_handler_is_removed() -> None:
    """A handler receives each signal's number until it is removed; the previous handler is restored."""

    async def check() -> None:
        received: list[signal.Signals] = []
        unheed = add_signal_handlers(received.append, signal.SIGUSR1, signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(60):
            while len(received) < 2:
                await asyncio.sleep(0.001)
        assert set(received) == {signal.SIGUSR1, signal.SIGUSR2}
        unheed()

    before = signal.getsignal(signal.SIGUSR1)
    asyncio.run(check())
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.fixture
def ignored() -> Iterator[Callable[[signal.Signals], object]]:
    """Return a function that ignores a signal until the test ends."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    yield lambda number: signal.signal(number, signal.SIG_IGN)
    for number, handler in previous.items():
        signal.signal(number, handler)


def received_until_sigterm(*others: signal.Signals) -> list[signal.Signals]:
    """Send signals and then SIGTERM to the handlers of a program, and return those that it received."""
    received: list[signal.Signals] = []

    async def check() -> None:
        remove_handlers = add_stop_handlers(received.append, 60.0, hangup=True)
        for number in (*others, signal.SIGTERM):
            os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            while signal.SIGTERM not in received:
                await asyncio.sleep(0.001)
        remove_handlers()

    asyncio.run(check())
    return received


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    """SIGTERM and SIGINT set the event, and so does SIGHUP if it is asked for."""

    async def check() -> None:
        with stop_on_signals(hangup=True) as stop:
            os.kill(os.getpid(), number)
            async with asyncio.timeout(60):
                await stop.wait()

    asyncio.run(check())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stops_nothing(
    ignored: Callable[[signal.Signals], object], number: signal.Signals
) -> None:
    """Nohup and the shells that start background jobs ignore signals, which then do not stop a program."""
    assert number in received_until_sigterm(number)
    ignored(number)
    assert number not in received_until_sigterm(number)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_sigterm_always_stops_a_program(ignored: Callable[[signal.Signals], object]) -> None:
    """A program can be stopped by SIGTERM even if it was started with SIGTERM ignored."""
    ignored(signal.SIGTERM)
    assert received_until_sigterm() == [signal.SIGTERM]


def test_a_removed_handler_leaves_the_signal_ignored(ignored: Callable[[signal.Signals], object]) -> None:
    """A daemon that has removed its handler of SIGHUP is not ended by the next one."""
    ignored(signal.SIGHUP)

    async def check() -> None:
        add_signal_handlers(lambda _: None, signal.SIGHUP)()

    asyncio.run(check())
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_handle_no_signals() -> None:
    """Only the main thread receives signals; elsewhere handling them is a no-op."""
    done: list[bool] = []

    async def check() -> None:
        with stop_on_signals() as stop:
            done.append(stop.is_set())

    thread = threading.Thread(target=lambda: asyncio.run(check()))
    thread.start()
    thread.join()
    assert done == [False]
