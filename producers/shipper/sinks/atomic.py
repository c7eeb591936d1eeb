"""Exactly-once sink: a batch of events and the checkpoint of their file stream are one JetStream commit.

The checkpoint has the condition that the previous checkpoint is still the last message on its subject
(``Nats-Expected-Last-Subject-Sequence``). So only one of all attempts to ship the same lines succeeds, in
whatever process; a process that misses the acknowledgement reads the checkpoint. Batches of several file
streams share a commit (``group_commit``), but each is looked up and retried by itself.

Invariants:

1. A batch is stored completely, with its checkpoint, or not at all.
2. A batch without an acknowledgement is looked up before it is sent again, and even if the lookup misses it,
   it is stored at most once.
3. The newest checkpoint is the newer of those in EVENTS, which expires, and CHECKPOINTS, which may lag.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from tickertape.contracts import subjects
from tickertape.producers.shipper.position import digest
from tickertape.producers.shipper.sinks.group_commit import Entry, GroupCommit, Outcome
from tickertape.producers.shipper.sinks.sink import (
    DENIED_DELAY,
    BlockedReport,
    Checkpoint,
    CommitRejected,
    Conflict,
    OutgoingEvent,
    StoredCheckpoint,
    decode,
)

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.client import publish_batch, watch_denials
from tickertape.nats.direct_get import StoredMessage
from tickertape.nats.errors import PermissionDenied, StreamsError
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.storage.problems import NO_REPLY, NO_REPLY_HINT, NO_STREAM_HINT, storage_failure
from tickertape.nats.wire.batch_messages import BatchMessages
from tickertape.process.tasks import run_with_check

COMMIT_TIMEOUT: Final = 10.0
"""Seconds to wait for an acknowledgement; the server abandons an idle batch after the same time."""

_WRONG_LAST_SEQUENCE: Final = frozenset({10070, 10071, 10164})
"""JetStream error codes for a condition that does not hold."""

_TOO_LARGE: Final = frozenset({10054})
"""JetStream error code for a message that exceeds the maximum size."""

_INCOMPLETE: Final = 10176
"""JetStream error code for a batch of which the server has not kept all messages: until the commit it stores
them in a file, for which there may be no space or no inode."""

_CONNECTION_POLL: Final = 0.1
"""Seconds between two checks of the connection."""

_MAX_SHARED_FAILURES: Final = 2
"""Failures of a commit that a batch shares with others after which it is sent by itself."""

_MAX_SUBJECTS: Final = 50_000
"""Subjects of checkpoints that are remembered by path."""

T = TypeVar("T")


class AtomicSink:
    """Sink for a server with atomic batches.

    Args:
        client: connected; the caller closes it.
        names: subjects and streams of the deployment.
        host: name of this host in the subjects of checkpoints.
        warn: called with a line when shipping is blocked although NATS is connected.
    """

    def __init__(self, client: Client, names: Names, host: str, warn: Callable[[str], None]) -> None:
        self._client = client
        self._names = names
        self._host = host
        self._blocked = BlockedReport(warn)
        self._batches = 0
        self._groups = GroupCommit(self._send)
        self._subjects: dict[str, str] = {}

    async def load(self) -> dict[str, StoredCheckpoint]:
        """Load the checkpoints of this host, by path; wait while NATS is unreachable."""
        pattern = self._names.subject(f"checkpoint.{subjects.escape(self._host)}.>")
        checkpoint_subjects: set[str] = set()
        for stream in ("EVENTS", "CHECKPOINTS"):
            checkpoint_subjects |= set(
                await self._retry(direct_get.list_subjects, self._names.stream(stream), pattern)
            )
        wanted = sorted(checkpoint_subjects)
        if wanted:
            # A permission that is missing is reported for one, and not denied for thousands.
            await self._load_newest(wanted[0])
        in_events = await self._load_many("EVENTS", wanted)
        in_checkpoints = await self._load_many("CHECKPOINTS", wanted)
        found: list[StoredCheckpoint | None] = []
        for subject in wanted:
            if subject in in_events and subject in in_checkpoints:
                found.append(_newest(in_events[subject], in_checkpoints[subject]))
            else:
                # Reports what keeps the reply away, and waits until it is over.
                found.append(await self._load_newest(subject))
        return {stored.checkpoint.path: stored for stored in found if stored is not None}

    async def _load_many(self, stream: str, wanted: list[str]) -> dict[str, StoredMessage | None]:
        """Load the last messages of subjects; return those whose replies arrived."""
        try:
            return await direct_get.get_last_messages(self._client, self._names.stream(stream), wanted)
        except NatsError:
            return {}

    async def commit(self, events: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Commit a batch atomically; see ``Sink.commit``."""
        self._batches += 1
        # The same for all attempts: a checkpoint that carries it proves that one of them was stored.
        batch = f"{checkpoint.run}-{self._batches}"
        body = checkpoint.encode(self._host, batch)
        subject = self._subject(checkpoint.path)
        failures = 0
        while True:
            # Others must not fail again because of this batch, if it is the one that NATS rejects.
            alone = failures >= _MAX_SHARED_FAILURES
            try:
                outcome = await self._groups.submit(events, subject, body, expected, alone=alone)
                if outcome.sequence:
                    return outcome.sequence
                failures += 1
                if outcome.code in _TOO_LARGE:
                    if outcome.shared:
                        failures = _MAX_SHARED_FAILURES
                        continue
                    raise CommitRejected(outcome.problem)
                stored = await self._load_newest(subject)
            except PermissionDenied as error:
                failures = _MAX_SHARED_FAILURES
                self._report_blocked(str(error))
                await asyncio.sleep(DENIED_DELAY)
                continue
            except (NatsError, OSError) as error:
                self._report_blocked(str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_DELAY)
                continue
            if stored is not None and stored.checkpoint.batch == batch:
                return stored.sequence  # the batch was stored, but its acknowledgement was lost
            last = stored.sequence if stored is not None else 0
            # Neither this batch nor another one was stored, or a replica that lags has answered: send it
            # again.
            if last == expected:
                if outcome.problem:
                    self._report_blocked(outcome.problem)
                await asyncio.sleep(RETRY_DELAY if outcome.problem else _CONNECTION_POLL)
            elif stored is None or stored.checkpoint.count < checkpoint.count:
                # Not another shipper: the checkpoint has expired in EVENTS, or the stream was recreated.
                expected = last
            else:
                raise Conflict(stored)

    def _report_blocked(self, problem: str) -> None:
        if self._client.is_connected:
            self._blocked.report(problem)

    async def _send(self, group: list[Entry]) -> None:
        """Send a group once, and set the outcome of each entry."""
        shared = len(group) > 1
        try:
            outcome = await self._attempt(group)
        except PermissionDenied as error:
            for entry in group:
                if not entry.outcome.done():
                    if not shared or self._contains(entry, error.subject):
                        entry.outcome.set_exception(error)
                    else:
                        entry.outcome.set_result(Outcome(0, 0, "", shared))
            return
        for before_last, entry in enumerate(reversed(group)):
            if not entry.outcome.done():
                # The checkpoints are the last messages, in this order.
                sequence = outcome.sequence and outcome.sequence - before_last
                entry.outcome.set_result(outcome._replace(sequence=sequence, shared=shared))

    def _contains(self, entry: Entry, subject: str) -> bool:
        return subject == entry.subject or any(
            self._names.subject(event.subject) == subject for event in entry.events
        )

    async def _attempt(self, group: list[Entry]) -> Outcome:
        """Send a group once; return the outcome with the sequence of the last checkpoint.

        Raises:
            PermissionDenied: NATS denies the subject of an event or of a checkpoint.
        """
        client = self._client
        # A batch that is sent over two connections would not be complete.
        while not client.is_connected:  # noqa: ASYNC110 - nothing signals the connection
            await asyncio.sleep(_CONNECTION_POLL)
        with watch_denials(client, self._watched_subjects(group)) as denied:
            headers = await self._publish_group(group)
            last = group[-1]
            headers["Nats-Expected-Last-Subject-Sequence"] = str(last.expected)
            try:
                reply = await self._request(last.subject, last.body, headers, denied)
            # Only the commit is a request, so a missing stream shows here.
            except NoRespondersError:
                return Outcome(0, 503, f"no stream stores checkpoints; {NO_STREAM_HINT}")
            except NatsTimeout:
                problem = f"{NO_REPLY}; {NO_REPLY_HINT}, and behind a leaf node, the log of the hub"
                return Outcome(0, 0, problem)
            ack = _decode_object(reply.data)
            error = ack.get("error")
            if error is None and "seq" in ack:
                self._blocked.clear()
                return Outcome(int(ack["seq"]), 0, "")
            if denied.done():
                denied.result()  # raises: the commit failed because this message of the batch is missing
        error = error or {}
        code = int(error.get("err_code") or 0)
        # Not a problem to report: the caller finds out which checkpoint was stored instead.
        if code in _WRONG_LAST_SEQUENCE:
            return Outcome(0, code, "")
        description = str(error.get("description", "unexpected reply"))
        if code == _INCOMPLETE:
            return Outcome(0, code, f"{description} (code {code}); {NO_REPLY_HINT}")
        failure = storage_failure(code, description)
        return Outcome(0, code, f"{description} (code {code})" if failure is None else "; ".join(failure))

    def _watched_subjects(self, group: list[Entry]) -> set[str]:
        watched = {event.subject for entry in group for event in entry.events}
        # The last checkpoint is a request, which fails by itself.
        return {*map(self._names.subject, watched), *(entry.subject for entry in group[:-1])}

    async def _publish_group(self, group: list[Entry]) -> dict[str, str]:
        """Publish the messages of a group but the last; return the headers of that, which commits it."""
        count = sum(entry.messages for entry in group)
        if count == 1:
            return {}
        client = self._client
        # A new id for each attempt, because the server still holds the messages of an attempt whose
        # connection was lost, until it abandons that batch.
        batch = secrets.token_hex(8)
        messages = BatchMessages(batch)
        for entry in group:
            for event in entry.events:
                messages.add(self._names.subject(event.subject), event.payload)
        for entry in group[:-1]:
            messages.add(entry.subject, entry.body, entry.expected)
        # No reply is requested: the server acknowledges the commit for all of them.
        await publish_batch(client, messages)
        return {
            "Nats-Batch-Id": batch,
            "Nats-Batch-Sequence": str(count),
            "Nats-Batch-Commit": "1",
        }

    async def _request(
        self, subject: str, body: bytes, headers: dict[str, str], denied: "asyncio.Future[Any]"
    ) -> Msg:
        """Send a request; fail early if the reply cannot arrive.

        Raises:
            NatsTimeout: the connection was lost, or there is no reply.
            PermissionDenied: NATS denies the subject, or an event of the batch.
        """
        client = self._client
        reconnects = client.stats["reconnects"]

        def check_connection() -> None:
            if denied.done():
                denied.result()
            if not client.is_connected or client.stats["reconnects"] != reconnects:
                raise NatsTimeout

        request = client.request(subject, body, timeout=COMMIT_TIMEOUT, headers=headers)
        return await run_with_check(request, check_connection, _CONNECTION_POLL)

    def _subject(self, path: str) -> str:
        subject = self._subjects.get(path)
        if subject is None:
            name = path.encode("utf-8", "surrogateescape")
            readable = path.rpartition("/")[2].encode("utf-8", "replace").decode()[-40:]
            subject = subjects.checkpoint_subject(self._host, f"{readable}-{digest(name)}")
            if len(self._subjects) >= _MAX_SUBJECTS:
                self._subjects.clear()
            subject = self._subjects[path] = self._names.subject(subject)
        return subject

    async def _load_newest(self, subject: str) -> StoredCheckpoint | None:
        """Load the newest checkpoint of a subject, and the sequence of the last one in EVENTS."""
        # A lagging replica may reply: then the condition of the commit fails, and this is read again.
        in_events = await self._retry(direct_get.get_last_message, self._names.stream("EVENTS"), subject)
        in_checkpoints = await self._retry(
            direct_get.get_last_message, self._names.stream("CHECKPOINTS"), subject
        )
        return _newest(in_events, in_checkpoints)

    async def _retry(
        self, query: Callable[[Client, str, str], Coroutine[Any, Any, T]], stream: str, subject: str
    ) -> T:
        """Retry a query until it succeeds: NATS may be unreachable or starting, or the stream missing."""
        while True:
            try:
                return await query(self._client, stream, subject)
            except (NatsError, StreamsError) as error:
                self._report_blocked(f"stream {stream}: {error}")
                await asyncio.sleep(RETRY_DELAY)


def _newest(in_events: StoredMessage | None, in_checkpoints: StoredMessage | None) -> StoredCheckpoint | None:
    """Return the newer of two checkpoints, and the sequence of the one in EVENTS; None if there is none."""
    checkpoints = [
        checkpoint
        for message in (in_events, in_checkpoints)
        if message and (checkpoint := _decode_checkpoint(message.data)) is not None
    ]
    if not checkpoints:
        return None
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.count)
    return StoredCheckpoint(newest, in_events.seq if in_events is not None else 0)


def _decode_object(data: bytes) -> dict[str, Any]:
    """Decode a JetStream reply; return an empty object for anything else, which other clients may send."""
    try:
        ack = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return ack if isinstance(ack, dict) else {}


def _decode_checkpoint(data: bytes) -> Checkpoint | None:
    try:
        return decode(data)
    except ValueError:
        return None  # another version, or not a checkpoint: the files are shipped from their start
