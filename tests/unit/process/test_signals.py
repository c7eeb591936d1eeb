"""Signals in the event loop."""

import asyncio
import os
import signal
import threading

from tickertape.process.signals import add_signal_handlers, stop_on_signals


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


def test_a_signal_sets_the_event() -> None:
    """SIGTERM and other named signals set the event."""

    async def check(number: signal.Signals) -> None:
        with stop_on_signals(signal.SIGUSR1) as stop:
            os.kill(os.getpid(), number)
            async with asyncio.timeout(60):
                await stop.wait()

    asyncio.run(check(signal.SIGTERM))
    asyncio.run(check(signal.SIGUSR1))


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
