"""``tickertape publish``: publish one event from the command line, or one per line of standard input.

Invariants:

1. Acknowledgements are printed in the order of the lines.
2. An invalid line does not affect other lines: it is reported with its number, and the exit code is 1.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import orjson
from pydantic import Field, ValidationError

from tickertape.cli.line_splitter import LineSplitter
from tickertape.config.model import Positional
from tickertape.contracts import subjects
from tickertape.contracts.decode import parse_subject
from tickertape.contracts.events import MAX_EVENT_BYTES, MODELS, format_time
from tickertape.contracts.subjects import SubjectError
from tickertape.errors import EXIT_FAILURE
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.settings import NatsSettings
from tickertape.process import shutdown
from tickertape.process.console import print_error, print_line, print_notice
from tickertape.process.signals import stop_on_signals
from tickertape.process.standard_streams import InputClosed
from tickertape.process.tasks import cancel_and_wait, race, run_until_stopped
from tickertape.producers.sdk.errors import InvalidEvent, PublishError
from tickertape.producers.sdk.in_flight import AckFuture
from tickertape.producers.sdk.publisher import DEADLINE, Publisher
from tickertape.producers.shipper.standard_input import standard_input
from tickertape.text import count
from tickertape.validation import describe_first_error

PROGRAM: Final = "publish"
_STANDARD_INPUT: Final = "-"
STOP_GRACE: Final = 1.0
"""Seconds after Ctrl-C to wait for outstanding acknowledgements."""

_MAX_PENDING_ACKS: Final = 1024
"""Maximum number of lines whose acknowledgement has not been printed."""


class PublishSettings(NatsSettings):
    """Settings of ``tickertape publish``."""

    section: ClassVar[str] = "publish"

    subject: Positional[str] = _STANDARD_INPUT
    """Subject of the event, such as log.info.demo; - derives it from each event."""
    text: Positional[str] = _STANDARD_INPUT
    """Event as JSON; - reads one event per line from standard input."""
    deadline: Annotated[float, Field(gt=0, le=100)] = DEADLINE
    """Maximum seconds to wait for an acknowledgement."""


@dataclass(frozen=True, slots=True)
class _PendingAck:
    line: int
    subject: str
    ack: AckFuture


class _InvalidLine(ValueError):
    """Line that is not a valid event; its text states the reason."""


async def run(settings: PublishSettings) -> int:
    """Publish events, and print one line per acknowledgement; return the exit code."""
    if settings.subject != _STANDARD_INPUT:
        try:
            subjects.check_pattern(settings.subject)
            if "*" in settings.subject or ">" in settings.subject:
                raise SubjectError(settings.subject, "contains a wildcard; an event has a single subject")
        except SubjectError as error:
            print_notice(PROGRAM, f"subject {error}")
            return 2
    rejected = asyncio.Event()

    def report_down(failure: ConnectFailure) -> None:
        if failure.kind.is_transient:
            print_notice(PROGRAM, failure.retry_message)
        else:
            print_notice(PROGRAM, str(failure))
            rejected.set()  # an interactive command does not retry: its operator can correct the settings now

    with stop_on_signals(hangup=True) as stop:
        publisher = Publisher(
            settings.nats_url,
            access=settings.access(),
            prefix=settings.subject_prefix,
            name="tickertape-publish",
            deadline=settings.deadline,
            on_down=report_down,
            on_stall=lambda line: print_notice(PROGRAM, line),
        )
        try:
            async with publisher:
                command = _Command(settings, publisher)
                try:
                    return await command.run(stop, rejected)
                finally:
                    # All acknowledgements have arrived, or it is too late for them.
                    await publisher.close(0.0)
        except (InputClosed, OSError) as error:
            print_notice(PROGRAM, str(error))
            return 1


class _Command:
    """Single run of the command."""

    def __init__(self, settings: PublishSettings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._pending: asyncio.Queue[_PendingAck | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(_MAX_PENDING_ACKS)
        self._unfinished = 0  # lines that were sent, and whose result is not printed
        self._codes: set[int] = set()  # exit codes of the lines that failed

    async def run(self, stop: asyncio.Event, rejected: asyncio.Event) -> int:
        """Publish all lines, and print their acknowledgements.

        Args:
            stop: ends reading; acknowledgements of what was sent have ``STOP_GRACE`` seconds to arrive.
            rejected: set if NATS rejects the connection: no acknowledgement will arrive.
        """
        printing = asyncio.create_task(self._print_acks(), name="acknowledgements")
        try:
            # With the printing: after an error in it, no slot becomes free for the next line.
            ended = race(stop.wait(), rejected.wait(), printing)
            all_read = await run_until_stopped(ended, self._publish_all()) is not None
            if all_read:
                await race(stop.wait(), rejected.wait(), printing)
            else:
                self._pending.put_nowait(None)
            if not rejected.is_set():
                await race(printing, rejected.wait(), seconds=STOP_GRACE)
            if printing.done():
                printing.result()  # raises its error
            elif not rejected.is_set():
                print_notice(PROGRAM, f"stopped: {count(self._unfinished, 'event')} not acknowledged")
            if all_read and printing.done():
                # Denied only if nothing else has failed.
                return min(self._codes, default=0)
            return shutdown.interrupted_code()
        finally:
            await cancel_and_wait(printing)

    async def _publish_all(self) -> bool:
        async with contextlib.aclosing(self._lines()) as lines:
            async for number, line in lines:
                await self._publish(number, line)
        self._pending.put_nowait(None)
        return True

    async def _lines(self) -> AsyncGenerator[tuple[int, bytes], None]:
        if self._settings.text != _STANDARD_INPUT:
            # Arguments may contain bytes that are not UTF-8; parsing the event rejects them.
            yield 1, self._settings.text.encode("utf-8", "surrogateescape")
            return
        number = 0
        # One byte more than the limit, so that longer lines are rejected instead of truncated.
        splitter = LineSplitter(MAX_EVENT_BYTES + 1)
        async with contextlib.aclosing(standard_input()) as chunks:
            async for chunk in chunks:
                for line in splitter.feed(chunk):
                    number += 1
                    yield number, line
        for line in splitter.finish():
            number += 1
            yield number, line

    async def _publish(self, number: int, line: bytes) -> None:
        if not line.strip():
            return
        # First, so that nothing can come between sending an event and waiting for its acknowledgement.
        await self._slots.acquire()
        self._unfinished += 1
        try:
            subject, payload = complete_event(self._settings.subject, line, time.time())
            ack = await self._publisher.submit(subject, payload)
        except (_InvalidLine, SubjectError) as error:
            self._fail(number, str(error), EXIT_FAILURE)
        except InvalidEvent as error:
            self._fail(number, str(error.rejection), EXIT_FAILURE)
        else:
            self._pending.put_nowait(_PendingAck(number, subject, ack))

    async def _print_acks(self) -> None:
        while (pending := await self._pending.get()) is not None:
            try:
                ack = await pending.ack
            except PublishError as error:
                self._fail(pending.line, str(error), error.exit_code)
            else:
                suffix = " (duplicate)" if ack.duplicate else ""
                print_line(f"{pending.subject} seq {ack.seq}{suffix}")
                self._finish()

    def _fail(self, number: int, reason: str, code: int) -> None:
        self._codes.add(code)
        print_error(f"line {number}: {reason}")
        self._finish()

    def _finish(self) -> None:
        self._unfinished -= 1
        self._slots.release()


def complete_event(subject: str, text: bytes, now: float) -> tuple[str, bytes]:
    """Fill in the fields of an event that follow from its subject.

    Args:
        subject: subject without the prefix of the deployment; ``-`` derives it from the event.
        text: event as JSON, or ``{"subject": ..., "event": ...}`` as ``tickertape tail --json`` prints it.
        now: UNIX seconds, for events without ``timestamp``.

    Returns:
        subject and payload; the payload is the unchanged text if no field was missing.

    Raises:
        ValueError: the text is not a JSON object, or the subject cannot be derived.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise _InvalidLine(f"event exceeds the maximum of {MAX_EVENT_BYTES} bytes")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _InvalidLine(f"bad_json: {error}") from None
    if not isinstance(body, dict):
        raise _InvalidLine("not_an_object: an event must be a JSON object")
    unchanged: bytes | None = text
    if isinstance(body.get("event"), dict) and isinstance(body.get("subject"), str):
        if subject == _STANDARD_INPUT:
            subject = body["subject"]
        body, unchanged = body["event"], None
    missing = _missing_fields(subject, body, now)
    if subject == _STANDARD_INPUT:
        subject = _subject_of({**missing, **body})
    if missing or unchanged is None:
        return subject, orjson.dumps({**missing, **body})
    return subject, unchanged


def _missing_fields(subject: str, body: dict[str, Any], now: float) -> dict[str, Any]:
    filled: dict[str, Any] = {"timestamp": format_time(now)}
    if subject != _STANDARD_INPUT:
        with contextlib.suppress(SubjectError):  # a custom subject implies no fields
            parsed = parse_subject(subject)
            filled = {"event_type": parsed.event_type, **filled}
            if body.get("event_type", parsed.event_type) == parsed.event_type:
                filled.update(parsed.fields)
                if parsed.event_type == "gateway_status_change":
                    # Reading the previous status would require more permissions than publishing.
                    filled["previous_status"] = "UNKNOWN"
    return {name: value for name, value in filled.items() if name not in body}


def _subject_of(body: dict[str, Any]) -> str:
    model = MODELS.get(str(body.get("event_type")))
    if model is None:
        known = ", ".join(MODELS)
        raise _InvalidLine(
            f"the subject cannot be derived: event_type is none of {known}; specify the subject"
        )
    try:
        return model.model_validate(body).subject
    except ValidationError as error:
        raise _InvalidLine(f"bad_field: {describe_first_error(error)}") from None
