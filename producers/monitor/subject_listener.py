"""Subscriptions of freshness probes, for which one message in each interval is enough, and of heartbeats.

Invariants:

1. A busy subject costs no more than a quiet one: NATS ends a subscription after one message, and it is
   repeated after ``PAUSE`` of the age that probes accept. With an age of 0, each message counts and is read.
2. A subject is listened to only while its subscription is in effect: not between two of them, nor while NATS
   is unreachable or denies it. What was not listened to is unknown.
3. A change of the patterns affects no other pattern.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from tickertape.producers.monitor.failures import describe_exception
from tickertape.producers.monitor.probes.context import Freshness

from tickertape.names import Names
from tickertape.nats.client import SafeClient
from tickertape.rate_limit import RepeatFilter

PAUSE: Final = 0.2
"""Share of the accepted age for which a subject is not listened to after a message; the end of its messages
is found that much later.
"""

RETRY_DELAY: Final = 1.0
"""Seconds until a failed subscription is tried again."""

REPORT_INTERVAL: Final = 60.0
"""Seconds after which the same failure is reported again."""

MAX_ROUND_TRIP: Final = 1.0
"""Seconds of a round trip after which the connection counts as interrupted."""

FLUSH_TIMEOUT: Final = 60
"""Seconds after which NATS is no longer expected to answer; a broken connection is found earlier."""

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Function that starts a task."""


class SubjectListener:
    """Subscriptions to the patterns of all freshness probes of a monitor.

    Args:
        freshness: receives the times of messages, and when a pattern is listened to.
        report: receives lines for the operator.
    """

    def __init__(self, freshness: Freshness, report: Callable[[str], None]) -> None:
        self._freshness = freshness
        self._report = report
        self._reported = RepeatFilter(REPORT_INTERVAL)
        self._client: Client | None = None
        self._ages: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._subjects: dict[str, str] = {}
        self._flushing: asyncio.Future[bool] | None = None
        self._reconnects = 0
        freshness.confirm = self._confirm

    def update(self, client: Client, names: Names, ages: Mapping[str, float], start: Start) -> None:
        """Listen on patterns from now on.

        Args:
            client: connected client, always the same one.
            names: subject names of the deployment.
            ages: shortest accepted age in seconds by pattern, without the deployment's prefix; 0 if each
                message counts.
            start: starts the tasks, and cancels them when the monitor stops.
        """
        if self._client is None:
            self._client, self._reconnects = client, client.stats["reconnects"]
            self._freshness.connect(asyncio.get_running_loop().time())
        for pattern in self._tasks.keys() - ages.keys():
            self._tasks.pop(pattern).cancel()
            del self._subjects[pattern]
            self._freshness.forget(pattern)
        for pattern in self._tasks:
            if (self._ages[pattern] == 0) is not (ages[pattern] == 0):
                self._tasks[pattern].cancel()
                self._tasks[pattern] = start(self._follow(client, pattern, self._subjects[pattern]))
        self._ages = dict(ages)
        for pattern in sorted(ages.keys() - self._tasks.keys()):
            self._subjects[pattern] = names.subject(pattern)
            self._tasks[pattern] = start(self._follow(client, pattern, self._subjects[pattern]))

    def update_connection(self, connected: bool) -> None:
        """Record whether messages can arrive: NATS may have been unreachable since the last call."""
        client = self._client
        if client is None:
            return
        reconnects = client.stats["reconnects"]
        if not connected or reconnects != self._reconnects:
            self._freshness.disconnect()
        now = asyncio.get_running_loop().time()
        if connected:
            self._reconnects = reconnects
            self._freshness.connect(now)
        if isinstance(client, SafeClient):
            found = {pattern: client.denials.find(subject) for pattern, subject in self._subjects.items()}
            self._freshness.set_denied({name: error for name, error in found.items() if error}, now)

    async def _follow(self, client: Client, pattern: str, subject: str) -> None:
        """Wait for one message after the other, until cancelled or the client is closed."""
        clock = asyncio.get_running_loop().time
        arrived = asyncio.Event()
        each_counts = self._ages[pattern] == 0

        async def receive(message: Msg) -> None:
            self._freshness.record_message(pattern, clock(), message.data)
            if each_counts:
                self._freshness.listen(pattern, clock())
            else:
                arrived.set()

        while not client.is_closed:
            arrived.clear()
            subscription: Subscription | None = None
            try:
                # Before the subscription is in effect, which ``confirm`` makes certain.
                self._freshness.listen(pattern, clock())
                subscription = await client.subscribe(subject, cb=receive, max_msgs=0 if each_counts else 1)
                if not each_counts:
                    await subscription.unsubscribe(limit=1)
                await arrived.wait()
            except Exception as error:
                self._freshness.pause(pattern)
                text = f"cannot subscribe to {pattern!r}: {describe_exception(error)}"
                if not client.is_closed and self._reported.allow(text, clock()):
                    self._report(text)
                await asyncio.sleep(RETRY_DELAY)
            finally:
                if subscription is not None and not arrived.is_set():
                    # It ends on the server, too; the client may be closed already.
                    with contextlib.suppress(NatsError, OSError):
                        await subscription.unsubscribe()
            await asyncio.sleep(self._ages.get(pattern, 0.0) * PAUSE)

    async def _confirm(self, seconds: float) -> bool:
        """Return whether all messages that NATS has sent up to now have arrived.

        A connection may be broken without that anything has been noticed yet.
        """
        client = self._client
        if client is None or not client.is_connected:
            return False
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._flush(client))
        # Not cancelled, because nats-py ends a connection on a PONG for which no one waits.
        done, _ = await asyncio.wait({self._flushing}, timeout=seconds)
        return bool(done) and self._flushing.result() and client.stats["reconnects"] == self._reconnects

    async def _flush(self, client: Client) -> bool:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await client.flush(FLUSH_TIMEOUT)
        except (NatsError, OSError):
            return False
        if clock() - began > MAX_ROUND_TRIP:
            # Subscriptions may have been under way for as long.
            self._freshness.disconnect()
            self._freshness.connect(clock())
        return True
