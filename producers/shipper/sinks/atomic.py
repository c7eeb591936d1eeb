"""Exactly once: a batch of events and the checkpoint of their file are one commit of JetStream.

The checkpoint is the batch's last message, on the condition that the one before it is still the newest of its
subject (``Nats-Expected-Last-Subject-Sequence``). So one of all attempts to ship the same lines is taken,
whoever makes them, and whoever is unsure reads the checkpoint to know.

Invariants:

1. A batch is in the stream whole, with its checkpoint, or not at all.
2. A batch whose acknowledgement did not come is looked for before it is sent again, and even so it is taken
   at most once.
3. The newest checkpoint is the newer one of EVENTS, which expires, and of CHECKPOINTS, which may lag.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from tickertape.contracts import subjects
from tickertape.producers.shipper.position import digest
from tickertape.producers.shipper.sinks.sink import (
    Checkpoint,
    CommitRejected,
    Conflict,
    OutgoingEvent,
    StoredCheckpoint,
    decode,
)

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.jetstream_api import StreamsError
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.process.tasks import run_with_check

COMMIT_TIMEOUT: Final = 10.0
"""Seconds for an acknowledgement; the server abandons an idle batch after as many."""

_WRONG_LAST: Final = frozenset({10070, 10071, 10164})
_TOO_LARGE: Final = frozenset({10054})
_LOADS_AT_ONCE: Final = 32
_CONNECTION_POLL: Final = 0.1
_FLUSH_BYTES: Final = 512 * 1024
T = TypeVar("T")


class AtomicSink:
    """Batches for a server with atomic batches.

    Args:
        client: connected; the caller closes it.
        names: the deployment.
        host: name of this host in the checkpoints' subjects.
        complain: called with one line when shipping halts for another reason than NATS being away.
    """

    def __init__(self, client: Client, names: Names, host: str, complain: Callable[[str], None]) -> None:
        self._client = client
        self._names = names
        self._host = host
        self._complain = complain
        self._complaint = ""
        self._run = secrets.token_hex(6)
        self._batches = 0

    async def load(self) -> dict[str, StoredCheckpoint]:
        """The checkpoints of this host, by path; waits while NATS is away."""
        pattern = self._names.subject(f"checkpoint.{subjects.escape(self._host)}.>")
        found: set[str] = set()
        for stream in ("EVENTS", "CHECKPOINTS"):
            found |= set(await self._patiently(direct_get.list_subjects, self._names.stream(stream), pattern))
        slots = asyncio.Semaphore(_LOADS_AT_ONCE)

        async def one(subject: str) -> StoredCheckpoint | None:
            async with slots:
                return await self._newest(subject)

        all_known = await asyncio.gather(*(one(subject) for subject in sorted(found)))
        return {known.checkpoint.path: known for known in all_known if known is not None}

    async def commit(self, items: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Ship a batch; see ``Sink.commit``."""
        self._batches += 1
        batch = f"{self._run}-{self._batches}"
        body = replace(checkpoint, batch=batch).encode(self._host)
        subject = self._subject(checkpoint.path)
        while True:
            try:
                sequence, code, trouble = await self._attempt(items, subject, body, expected)
                if sequence:
                    return sequence
                if code in _TOO_LARGE:
                    raise CommitRejected(trouble)
                known = await self._newest(subject)
            except (NatsError, OSError) as error:
                self._tell(str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_DELAY)
                continue
            if known is not None and known.checkpoint.batch == batch:
                return known.sequence  # it was taken, and its acknowledgement lost
            there = known.sequence if known is not None else 0
            if there == expected:
                if trouble:
                    self._tell(trouble)
                await asyncio.sleep(RETRY_DELAY if trouble else _CONNECTION_POLL)
            elif known is None or known.checkpoint.count < checkpoint.count:
                # EVENTS has let the last checkpoint go, or was made anew: nobody else has moved on.
                expected = there
            else:
                raise Conflict(known)

    def _tell(self, trouble: str) -> None:
        if self._client.is_connected and trouble != self._complaint:
            self._complaint = trouble
            self._complain(f"shipping has halted: {trouble}; trying on, nothing is lost")

    async def _attempt(
        self, items: Sequence[OutgoingEvent], subject: str, body: bytes, expected: int
    ) -> tuple[int, int, str]:
        """Send a batch once: its checkpoint's sequence, or the error's code and text."""
        client = self._client
        while not client.is_connected:  # noqa: ASYNC110 - what is sent meanwhile would be half a batch
            await asyncio.sleep(_CONNECTION_POLL)
        condition = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        if items:
            batch = secrets.token_hex(8)
            prefix = self._names.subject
            for number, item in enumerate(items, 1):
                headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                await client.publish(prefix(item.subject), item.payload, headers=headers)
                if client.pending_data_size > _FLUSH_BYTES:
                    await asyncio.sleep(0)
            condition |= {
                "Nats-Batch-Id": batch,
                "Nats-Batch-Sequence": str(len(items) + 1),
                "Nats-Batch-Commit": "1",
            }
        try:
            reply = await self._request(subject, body, condition)
        except NoRespondersError:
            return 0, 503, "no stream takes checkpoints; create the streams with 'tickertape streams apply'"
        except NatsTimeout:
            return 0, 0, "no acknowledgement came"
        answer = _object(reply.data)
        error = answer.get("error")
        if error is None and "seq" in answer:
            self._complaint = ""
            return int(answer["seq"]), 0, ""
        error = error or {}
        code = int(error.get("err_code") or 0)
        if code in _WRONG_LAST:
            return 0, code, ""
        return 0, code, f"{error.get('description', 'a strange answer')} (code {code})"

    async def _request(self, subject: str, body: bytes, headers: dict[str, str]) -> Msg:
        """Ask, but wait no longer for an answer when the connection is gone on which it would come."""
        client = self._client
        reconnects = client.stats["reconnects"]

        def scan() -> None:
            if not client.is_connected or client.stats["reconnects"] != reconnects:
                raise NatsTimeout

        asking = client.request(subject, body, timeout=COMMIT_TIMEOUT, headers=headers)
        return await run_with_check(asking, scan, _CONNECTION_POLL)

    def _subject(self, path: str) -> str:
        name = path.encode("utf-8", "surrogateescape")
        readable = path.rpartition("/")[2].encode("utf-8", "replace").decode()[-40:]
        return self._names.subject(subjects.checkpoint_subject(self._host, f"{readable}-{digest(name)}"))

    # What is there.

    async def _newest(self, subject: str) -> StoredCheckpoint | None:
        """The newest checkpoint of a subject, and the sequence of the last one in EVENTS."""
        # A replica without the newest may answer: then a commit's condition fails, and it asks again.
        here = await self._patiently(direct_get.get_last_message, self._names.stream("EVENTS"), subject)
        kept = await self._patiently(direct_get.get_last_message, self._names.stream("CHECKPOINTS"), subject)
        sequence = here.seq if here is not None else 0
        found = [checkpoint for item in (here, kept) if item and (checkpoint := _read(item.data)) is not None]
        if not found:
            return None
        return StoredCheckpoint(max(found, key=lambda one: one.count), sequence)

    async def _patiently(
        self, ask: Callable[[Client, str, str], Coroutine[Any, Any, T]], stream: str, subject: str
    ) -> T:
        """Ask until an answer comes: NATS may be away, a server just begin, or a stream be gone."""
        while True:
            try:
                return await ask(self._client, stream, subject)
            except (NatsError, StreamsError) as error:
                self._tell(f"stream {stream}: {error}")
                await asyncio.sleep(RETRY_DELAY)


def _object(data: bytes) -> dict[str, Any]:
    """An answer of JetStream's; empty when it cannot be read, as anyone may publish to an inbox."""
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _read(data: bytes) -> Checkpoint | None:
    try:
        return decode(data)
    except ValueError:
        return None  # of another version, or not of a shipper: the files are known by nothing then
