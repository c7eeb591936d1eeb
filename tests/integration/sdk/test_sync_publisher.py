"""The publisher without asyncio: threads, forks, backpressure, closing and interpreter exit."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest
from nats.aio.client import Client
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.errors import InvalidEvent, PublishDropped, PublisherFull, PublishError
from tickertape.producers.sdk.publisher import Ack
from tickertape.producers.sdk.sync_publisher import SyncPublisher

from tests.integration.sdk.test_publisher import stored, with_client
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import streams


def line(text: str) -> SystemLog:
    return SystemLog(level="INFO", message=text, source="test")


def provision(url: str, prefix: str = "") -> None:
    async def make(client: Client) -> None:
        await streams.provision(client, Names(prefix))

    asyncio.run(with_client(url, make))


def messages(url: str, prefix: str = "") -> list[str]:
    names = Names(prefix)

    async def read(client: Client) -> list[str]:
        events = await stored(client, names.subject("log.info.test"), names.stream("EVENTS"))
        return [event["message"] for event in events]

    found: list[str] = asyncio.run(with_client(url, read))
    return found


def test_threads_share_a_publisher(nats_url: str, nats_prefix: str) -> None:
    """Each thread's events are stored in that thread's order, and each call returns its acknowledgement."""
    provision(nats_url, nats_prefix)
    acks: dict[str, Ack] = {}
    with SyncPublisher(nats_url, prefix=nats_prefix, max_pending=20) as publisher:

        def work(name: int) -> None:
            futures = {
                f"{name}-{number}": publisher.submit(line(f"{name}-{number}")) for number in range(100)
            }
            acks.update({text: future.result(PATIENCE) for text, future in futures.items()})
            acks[f"{name}-last"] = publisher.publish(line(f"{name}-last"))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        publisher.flush()
        assert publisher.pending == 0
    found = messages(nats_url, nats_prefix)
    assert len(found) == len(acks) == 505
    assert all(found[ack.seq - 1] == text for text, ack in acks.items())
    for name in range(5):
        own = [text for text in found if text.startswith(f"{name}-")]
        assert own == [*(f"{name}-{number}" for number in range(100)), f"{name}-last"]


def test_an_invalid_event_raises_in_the_caller(nats_url: str, nats_prefix: str) -> None:
    """An invalid event raises in the caller's thread; raw JSON of a custom type is accepted."""
    provision(nats_url, nats_prefix)
    with SyncPublisher(nats_url, prefix=nats_prefix) as publisher:
        with pytest.raises(InvalidEvent, match="subject_mismatch"):
            publisher.publish_raw("log.error.test", line("x").encode())
        own = b'{"event_type":"mine","timestamp":"2025-06-24T10:30:45Z","a":1}'
        assert publisher.publish_raw("log.mine", own, msg_id="1").seq == 1
        assert publisher.publish_raw("log.mine", own, msg_id="1").duplicate


def test_a_full_publisher_follows_its_policy(nats_server: NatsServer) -> None:
    """While NATS is unreachable a full publisher raises, drops or blocks according to its policy."""
    provision(nats_server.url)
    nats_server.stop()
    with SyncPublisher(nats_server.url, max_pending=2, when_full="raise") as publisher:
        kept = [publisher.submit(line(f"raise {number}")) for number in range(2)]
        with pytest.raises(PublisherFull):
            publisher.publish(line("refused"))
        with SyncPublisher(nats_server.url, max_pending=2, when_full="drop_oldest") as dropping:
            futures = [dropping.submit(line(f"drop {number}")) for number in range(10)]
            for future in futures[:8]:
                assert isinstance(future.exception(PATIENCE), PublishDropped)
            assert dropping.dropped == 8
            with SyncPublisher(nats_server.url, max_pending=2) as blocking:
                done: list[Future[Ack]] = []
                thread = threading.Thread(
                    target=lambda: done.extend(
                        blocking.submit(line(f"block {number}")) for number in range(6)
                    )
                )
                thread.start()
                thread.join(0.2)
                assert thread.is_alive()
                assert blocking.pending == 2
                nats_server.start()
                thread.join(PATIENCE)
                blocking.flush()
                assert len({future.result(PATIENCE).seq for future in done}) == 6
            assert len({future.result(PATIENCE).seq for future in [*kept, *futures[8:]]}) == 4
    found = messages(nats_server.url)
    assert [text for text in found if text.startswith("block")] == [f"block {number}" for number in range(6)]
    assert sorted(text for text in found if not text.startswith("block")) == [
        "drop 8", "drop 9", "raise 0", "raise 1"
    ]  # fmt: skip


def test_a_close_is_bounded_and_final(nats_server: NatsServer) -> None:
    """Without NATS, ``close`` fails all events and waiting callers at its timeout and leaves no thread."""
    nats_server.stop()
    before = threading.active_count()
    publisher = SyncPublisher(nats_server.url, max_pending=1)
    future = publisher.submit(line("lost"))
    errors: list[BaseException] = []

    def wait_for_capacity() -> None:
        try:
            publisher.publish(line("waits"))
        except PublishError as error:
            errors.append(error)

    thread = threading.Thread(target=wait_for_capacity)
    thread.start()
    time.sleep(0.1)
    publisher.close(0.2)
    thread.join(PATIENCE)
    assert isinstance(future.exception(0), PublishError)
    assert "closed" in str(errors[0])
    with pytest.raises(PublishError, match="closed"):
        publisher.publish(line("late"))
    publisher.close()
    publisher.flush()
    assert publisher.closed
    assert threading.active_count() == before
    SyncPublisher(nats_server.url).close()  # a publisher that was never used


def test_a_callback_cannot_wait_for_its_own_thread(nats_url: str, nats_prefix: str) -> None:
    """A callback that publishes and waits gets an error instead of a deadlock of its own thread."""
    provision(nats_url, nats_prefix)
    raised: Future[BaseException | None] = Future()
    with SyncPublisher(nats_url, prefix=nats_prefix) as publisher:

        def publish_more(_: Future[Ack]) -> None:
            try:
                publisher.publish(line("two"))
            except RuntimeError as error:
                raised.set_result(error)
            else:
                raised.set_result(None)

        publisher.submit(line("one")).add_done_callback(publish_more)
        assert "its own thread" in str(raised.result(PATIENCE))


CHILD = """
import os, sys
from tickertape import SyncPublisher, SystemLog
publisher = SyncPublisher(sys.argv[1])
event = SystemLog(level="INFO", message="parent", source="test")
publisher.publish(event)
pid = os.fork()
if pid == 0:
    for use in (lambda: publisher.publish(event), lambda: publisher.submit(event), publisher.flush):
        try:
            use()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            os._exit(3)
    publisher.close()
    with SyncPublisher(sys.argv[1]) as own:
        own.publish(SystemLog(level="INFO", message="child", source="test"))
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
publisher.publish(SystemLog(level="INFO", message="parent again", source="test"))
publisher.submit(SystemLog(level="INFO", message="at exit", source="test"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_an_raisedand_the_exit_flushes(nats_server: NatsServer) -> None:
    """A forked child gets an error and can create its own publisher; the last events are flushed at exit."""
    provision(nats_server.url)
    url = nats_server.url.replace("127.0.0.1", "localhost")  # tests that a name can still be resolved at exit
    done = subprocess.run(
        [sys.executable, "-c", CHILD, url], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert messages(nats_server.url) == ["parent", "child", "parent again", "at exit"]


def test_an_exit_without_nats_is_bounded(nats_server: NatsServer) -> None:
    """Without NATS a program exits within a bounded time although its last event cannot be sent."""
    nats_server.stop()
    code = (
        "import sys; from tickertape.producers.sdk import sync_publisher as sync; sync.EXIT_TIMEOUT = 0.3;"
        "from tickertape import SystemLog;"
        "p = sync.SyncPublisher(sys.argv[1]);"
        "p.submit(SystemLog(level='INFO', message='lost', source='test'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, nats_server.url], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
