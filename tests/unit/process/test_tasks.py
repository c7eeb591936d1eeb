"""Tasks that swallow cancellations, as nats-py and Python 3.11's ``wait_for`` do, end nevertheless."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tickertape.nats.connection import connect
from tickertape.process.tasks import Tasks, cancel_and_wait, race, run_until_stopped, run_with_check

AGAIN = 0.01


async def ignore_cancellations(times: int, result: BaseException | None = None) -> None:
    """Ignore a number of cancellations; then end, with an exception if one is given."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if times == 0:
                if result is not None:
                    raise result from None
                raise
            times -= 1


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine; fail if it does not finish."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


@pytest.mark.parametrize("times", [0, 1, 2, 5])
def test_a_cancellation_that_is_swallowed_is_repeated(times: int) -> None:
    """A swallowed cancellation is repeated as often as necessary; a finished task is left alone."""

    async def check() -> None:
        done = asyncio.create_task(asyncio.sleep(0, "done"))
        await done
        tasks = [asyncio.create_task(ignore_cancellations(number)) for number in range(times + 1)]
        await asyncio.sleep(0)
        await cancel_and_wait(done, *tasks, interval=AGAIN)
        assert done.result() == "done"
        assert all(task.cancelled() for task in tasks)

    run(check())


def test_the_exception_of_a_cancelled_task_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """The exception of a cancelled task is kept: not raised, and not logged as never retrieved."""

    async def check() -> None:
        task = asyncio.create_task(ignore_cancellations(1, ValueError("at the end")))
        await asyncio.sleep(0)
        await cancel_and_wait(task, interval=AGAIN)
        assert str(task.exception()) == "at the end"

    run(check())
    assert caplog.records == []


def test_the_caller_may_be_cancelled_while_it_waits() -> None:
    """A cancellation of the caller is raised after all tasks have ended."""

    async def check() -> None:
        requested = 0

        async def orderly() -> None:
            nonlocal requested
            for _ in range(2):
                try:
                    await asyncio.sleep(3600 if not requested else 0.05)
                except asyncio.CancelledError:
                    requested += 1

        task = asyncio.create_task(orderly())
        await asyncio.sleep(0)
        ending = asyncio.create_task(cancel_and_wait(task, interval=30))
        for _ in range(3):
            await asyncio.sleep(0)
            ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert task.done()
        assert not task.cancelled()
        assert requested == 1

    run(check())


def test_a_race_is_over_with_the_first() -> None:
    """The first one to finish ends the race: other coroutines are cancelled, tasks continue, a timeout is no
    error.
    """

    async def check() -> None:
        ended: list[str] = []

        async def wait() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("wait")

        task = asyncio.create_task(ignore_cancellations(0))
        await race(task, wait(), asyncio.sleep(0.01))
        assert ended == ["wait"]
        await race(task, wait(), seconds=0.01)
        assert ended == ["wait", "wait"]
        assert not task.done()
        await cancel_and_wait(task)
        await race(task, wait())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(check())


def test_a_race_raises_what_its_coroutines_raise() -> None:
    """A coroutine's exception is raised; a task's exception stays in the task."""

    async def fail() -> None:
        raise ValueError("the first")

    async def check() -> None:
        with pytest.raises(ValueError, match="the first"):
            await race(fail(), asyncio.sleep(3600))
        task = asyncio.create_task(fail())
        await race(task, asyncio.sleep(3600))
        with pytest.raises(ValueError, match="the first"):
            await task

    run(check())


def test_work_runs_until_it_is_interrupted() -> None:
    """The result or exception of the work is returned; None if it was interrupted."""

    async def fail() -> None:
        raise ValueError("at work")

    async def check() -> None:
        assert await run_until_stopped(asyncio.sleep(3600), asyncio.sleep(0.01, "done")) == "done"
        assert await run_until_stopped(asyncio.sleep(0.01), asyncio.sleep(3600, "done")) is None
        with pytest.raises(ValueError, match="at work"):
            await run_until_stopped(asyncio.sleep(3600), fail())
        running = asyncio.create_task(run_until_stopped(asyncio.sleep(3600), asyncio.sleep(3600)))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(check())


def test_checked_work_ends_when_the_check_fails() -> None:
    """The check runs until it raises, or until the work is done."""

    async def check() -> None:
        looks = 0

        def poll() -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                raise ConnectionError("in vain")

        assert await run_with_check(asyncio.sleep(0, "done"), poll, 0.01) == "done"
        with pytest.raises(ConnectionError, match="in vain"):
            await run_with_check(ignore_cancellations(0), poll, 0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(check())


def test_tasks_have_time_to_end_by_themselves() -> None:
    """Tasks get time to finish; the rest are cancelled."""

    async def check() -> None:
        async with Tasks() as tasks:
            await tasks.join(0.0)
            quick, slow = tasks.start(asyncio.sleep(0.01, "done")), tasks.start(ignore_cancellations(0))
            while not quick.done():
                await tasks.join(0.01)
            assert len(tasks) == 1
        assert slow.cancelled()

    run(check())


@pytest.mark.parametrize("swallowed", [0, 2])
def test_a_group_ends_with_the_first_that_fails(swallowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first exception is raised unchanged, after all other tasks have ended."""
    monkeypatch.setattr(
        "tickertape.process.tasks.cancel_and_wait", lambda *tasks: cancel_and_wait(*tasks, interval=AGAIN)
    )
    others: list[asyncio.Task[None]] = []

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("the first")

    async def work() -> None:
        async with Tasks() as tasks:
            others.append(tasks.start(ignore_cancellations(swallowed)))
            tasks.start(fail(), "fails")
            tasks.start(asyncio.sleep(0))
            await tasks.until()

    async def check() -> None:
        with pytest.raises(ValueError, match="the first"):
            await work()
        assert others[0].cancelled()

    run(check())


def test_a_group_ends_with_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group ends with its body, also by an exception or cancellation; late failures are raised as well."""
    monkeypatch.setattr(
        "tickertape.process.tasks.cancel_and_wait", lambda *tasks: cancel_and_wait(*tasks, interval=AGAIN)
    )

    async def left(how: BaseException | None, last: BaseException | None = None) -> asyncio.Task[None]:
        async with Tasks() as tasks:
            task = tasks.start(ignore_cancellations(1, last))
            await tasks.until(asyncio.sleep(0.01))
            if how is not None:
                raise how
        return task

    async def check() -> None:
        assert (await left(None)).cancelled()
        with pytest.raises(KeyError):
            await left(KeyError("mine"))
        with pytest.raises(OSError, match="at its end"):
            await left(None, OSError("at its end"))
        with pytest.raises(KeyError):  # whichever came first
            await left(KeyError("mine"), OSError("at its end"))
        running = asyncio.create_task(left(None))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(check())


def test_a_client_that_is_closed_does_not_connect_again(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a client ends its reconnect task, although that has swallowed the first cancellation."""
    monkeypatch.setattr(
        "tickertape.nats.client.cancel_and_wait", lambda *tasks: cancel_and_wait(*tasks, interval=AGAIN)
    )

    async def check() -> None:
        client = await connect(nats_url, name="test")
        task = client._reconnection_task = asyncio.create_task(ignore_cancellations(2))
        await asyncio.sleep(0)
        await client.close()
        assert task.cancelled()
        assert client.is_closed

    run(check())
