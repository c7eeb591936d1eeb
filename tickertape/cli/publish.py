"""``tickertape publish``: one event from the command line, or one per line of standard input.

Invariants:

1. Lines are acknowledged, and told, in the order in which they came.
2. A bad line costs nobody but itself: it is named with its number, the others go on, and the exit code is 1.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from pydantic import Field, ValidationError
from pydantic_settings import CliPositionalArg

from tickertape.contracts import subjects
from tickertape.contracts.decode import parse_subject
from tickertape.contracts.events import MAX_EVENT_BYTES, MODELS, format_time
from tickertape.contracts.subjects import SubjectError
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.settings import NatsSettings
from tickertape.process.console import print_notice
from tickertape.process.signals import stop_on_signals
from tickertape.process.tasks import cancel_and_wait, race, run_until_stopped
from tickertape.producers.sdk.errors import InvalidEvent, PublishError
from tickertape.producers.sdk.in_flight import AckFuture
from tickertape.producers.sdk.publisher import DEADLINE, Publisher
from tickertape.producers.shipper.parsing.line_splitter import LineSplitter, standard_input
from tickertape.text import join_lines
from tickertape.validation import describe_first_error

PROGRAM: Final = "publish"
_STANDARD_INPUT: Final = "-"
STOP_GRACE: Final = 1.0
"""Seconds after Ctrl-C for what is on its way."""

_MAX_PENDING_ACKS: Final = 1024
"""Lines whose acknowledgement is not told yet."""


class PublishSettings(NatsSettings):
    """Publish one event, or one per line of standard input."""

    subject: CliPositionalArg[str] = _STANDARD_INPUT
    """Where it goes, such as log.info.demo; - takes it from each event."""
    text: CliPositionalArg[str] = _STANDARD_INPUT
    """The event as JSON; - reads one event per line of standard input."""
    deadline: Annotated[float, Field(gt=0, le=100)] = DEADLINE
    """Seconds to wait for an acknowledgement."""


@dataclass(frozen=True, slots=True)
class _PendingAck:
    line: int
    subject: str
    ticket: AckFuture


class _BadLine(ValueError):
    """A line that makes no event; its text says why."""


async def run(settings: PublishSettings) -> int:
    """Publish, and print a line per acknowledgement; return the exit code."""
    if settings.subject != _STANDARD_INPUT:
        try:
            subjects.check_pattern(settings.subject)
            if "*" in settings.subject or ">" in settings.subject:
                raise SubjectError(settings.subject, "has a wildcard; an event goes to one subject")
        except SubjectError as error:
            print_notice(PROGRAM, f"subject {error}")
            return 2
    turned_away = asyncio.Event()

    def down(failure: ConnectFailure) -> None:
        if failure.kind.is_transient:
            print_notice(PROGRAM, failure.retry_message)
        else:
            print_notice(PROGRAM, str(failure))
            turned_away.set()  # a command has an operator beside it, who can correct that now

    with stop_on_signals() as stop:
        publisher = Publisher(
            settings.nats_url,
            access=settings.access(),
            prefix=settings.subject_prefix,
            name="tickertape-publish",
            deadline=settings.deadline,
            on_down=down,
        )
        try:
            async with publisher:
                command = _Command(settings, publisher)
                try:
                    code = await run_until_stopped(race(stop.wait(), turned_away.wait()), command.run())
                finally:
                    grace = STOP_GRACE if stop.is_set() else None
                    await publisher.close(0.0 if turned_away.is_set() else grace)
                return 1 if code is None else code
        except OSError as error:
            print_notice(PROGRAM, str(error))
            return 1


class _Command:
    def __init__(self, settings: PublishSettings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._sent: asyncio.Queue[_PendingAck | None] = asyncio.Queue(_MAX_PENDING_ACKS)
        self._failures = 0

    async def run(self) -> int:
        telling = asyncio.create_task(self._tell(), name="acknowledgements")
        try:
            async with contextlib.aclosing(self._lines()) as lines:
                async for number, line in lines:
                    await self._publish(number, line)
            await self._sent.put(None)
            await telling
        finally:
            await cancel_and_wait(telling)
        return 1 if self._failures else 0

    async def _lines(self) -> AsyncGenerator[tuple[int, bytes], None]:
        if self._settings.text != _STANDARD_INPUT:
            yield 1, self._settings.text.encode("utf-8", "surrogateescape")
            return
        number = 0
        # One byte more than an event may have, so that a longer line is refused and not cut.
        splitter = LineSplitter(MAX_EVENT_BYTES + 1)
        async with contextlib.aclosing(standard_input()) as pieces:
            async for piece in pieces:
                for raw in splitter.feed(piece):
                    number += 1
                    yield number, raw.data
        for raw in splitter.finish():
            number += 1
            yield number, raw.data

    async def _publish(self, number: int, line: bytes) -> None:
        if not line.strip():
            return
        try:
            subject, payload = complete_event(self._settings.subject, line, time.time())
            ticket = await self._publisher.submit(subject, payload)
        except (_BadLine, SubjectError) as error:
            self._fail(number, str(error))
        except InvalidEvent as error:
            self._fail(number, str(error.rejection))
        else:
            await self._sent.put(_PendingAck(number, subject, ticket))

    async def _tell(self) -> None:
        while (sent := await self._sent.get()) is not None:
            try:
                ack = await sent.ticket
            except PublishError as error:
                self._fail(sent.line, str(error))
            else:
                again = " (duplicate)" if ack.duplicate else ""
                print(f"{sent.subject} seq {ack.seq}{again}", flush=True)

    def _fail(self, number: int, reason: str) -> None:
        self._failures += 1
        print(f"line {number}: {join_lines(reason)}", file=sys.stderr, flush=True)


def complete_event(subject: str, text: bytes, now: float) -> tuple[str, bytes]:
    """Make an event of JSON text by filling in what its subject says already.

    Args:
        subject: without the deployment's prefix; ``-`` takes it from the event, of a type of the contract.
        text: an event, or ``{"subject": ..., "event": ...}`` as ``tickertape tail --json`` writes it.
        now: UNIX seconds, for an event without a ``timestamp``.

    Returns:
        The subject and the payload: the text as it is when nothing was missing.

    Raises:
        ValueError: it is no JSON object, or its subject cannot be told.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise _BadLine(f"more than {MAX_EVENT_BYTES} bytes, which is the most that an event may have")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _BadLine(f"bad_json: {error}") from None
    if not isinstance(body, dict):
        raise _BadLine("not_an_object: an event is a JSON object")
    whole: bytes | None = text
    if isinstance(body.get("event"), dict) and isinstance(body.get("subject"), str):
        if subject == _STANDARD_INPUT:
            subject = body["subject"]
        body, whole = body["event"], None
    missing = _missing_fields(subject, body, now)
    if subject == _STANDARD_INPUT:
        subject = _subject_of({**missing, **body})
    if missing or whole is None:
        return subject, orjson.dumps({**missing, **body})
    return subject, whole


def _missing_fields(subject: str, body: dict[str, Any], now: float) -> dict[str, Any]:
    filled: dict[str, Any] = {"timestamp": format_time(now)}
    if subject != _STANDARD_INPUT:
        with contextlib.suppress(SubjectError):  # a subject of others names no fields
            place = parse_subject(subject)
            filled = {"event_type": place.event_type, **filled}
            if body.get("event_type", place.event_type) == place.event_type:
                filled.update(place.fields)
                if place.event_type == "gateway_status_change":
                    filled["previous_status"] = "UNKNOWN"
    return {name: value for name, value in filled.items() if name not in body}


def _subject_of(body: dict[str, Any]) -> str:
    model = MODELS.get(str(body.get("event_type")))
    if model is None:
        known = ", ".join(MODELS)
        raise _BadLine(f"its subject cannot be told: event_type is none of {known}; name the subject")
    try:
        return model.model_validate(body).subject
    except ValidationError as error:
        raise _BadLine(f"bad_field: {describe_first_error(error)}") from None
