"""Records of OpenTelemetry's requests as events: mapped, filtered, redacted and encoded.

Invariants:

1. The events of a request depend on its body and the settings alone, and so do their message ids: a request
   that is sent again repeats none within the duplicate window.
2. Every secret is redacted that would be in a line with the same text.
3. The events of a request have ``MAX_EXPANDED_BYTES`` at most, although each repeats its resource.
"""

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, Final

import orjson
from tickertape.contracts import strict_json
from tickertape.contracts.events import format_time
from tickertape.producers.shipper import sanitize
from tickertape.producers.shipper.otlp.wire import RequestDecoder
from tickertape.producers.shipper.parsing import fix_messages
from tickertape.producers.shipper.parsing.formats.fields import FieldMapping, Fields, legal_source
from tickertape.producers.shipper.parsing.formats.otlp import map_record, read_json, shared_metadata
from tickertape.producers.shipper.parsing.levels import DEFAULT_LEVEL
from tickertape.producers.shipper.parsing.parsed_event import ParsedEvent
from tickertape.producers.shipper.parsing.parser import ParserCounts, ParseSettings
from tickertape.producers.shipper.parsing.timestamps import TimestampParser
from tickertape.producers.shipper.redaction import rules
from tickertape.producers.shipper.redaction.expressions import compile_bytes
from tickertape.producers.shipper.redaction.redactor import Redactor
from tickertape.producers.shipper.sinks.sink import OutgoingEvent
from tickertape.producers.shipper.throttle import Throttle

from tickertape.errors import TickertapeError

MAX_EXPANDED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the events of one request, each of which repeats what its resource and scope say."""

MAX_RECORDS: Final = 50_000
"""Records of a request; exporters send 512 by default, and the collector 8 192."""

MAX_JSON_DEPTH: Final = 200
"""Depth of a request in JSON, in which each level of a value has three."""

_TURN: Final = 128
"""Records after which other work has its turn."""

_TRUNCATED: Final = b',"metadata":{"truncated":true}}'
_SUSPECT: Final = compile_bytes(b"|".join((sanitize.SUSPECT, fix_messages.SUSPECT, rules.SUSPECT)))


class MalformedRequest(TickertapeError, ValueError):
    """Request that cannot be read."""


class RequestTooLarge(TickertapeError, ValueError):
    """Request whose events are too large together."""


@dataclass(slots=True)
class RequestEvents:
    """Events of a request.

    Attributes:
        events: events to store.
        rejected: records that cannot be events.
        problem: the reason for the last of them.
    """

    events: list[OutgoingEvent] = field(default_factory=list)
    rejected: int = 0
    problem: str = ""

    def reject(self, count: int, problem: str) -> None:
        """Count records that cannot be events."""
        if count:
            self.rejected += count
            self.problem = problem


def request_digest(body: bytes) -> str:
    """Return the part of message ids that is the same whenever the request is sent."""
    return hashlib.sha256(body).hexdigest()[:32]


class RecordReader:
    """Reader of requests.

    Args:
        settings: fields, time zone and secrets.
        source: source of records whose resource has no service.
        counts: counters, which readers of other inputs may share.
        throttle: decides which events are stored.
        limit: maximum size of an event in bytes that the server accepts.
    """

    def __init__(
        self, settings: ParseSettings, source: str, counts: ParserCounts, throttle: Throttle, limit: int
    ) -> None:
        self._source = source
        self._counts = counts
        self._throttle = throttle
        self._limit = limit
        self._mapping = FieldMapping(settings.fields, TimestampParser(settings.zone))
        self._redactor = Redactor(counts.redacted, settings.redact)

    async def read(self, body: bytes, *, is_json: bool, now: float) -> RequestEvents:
        """Read a request.

        Args:
            body: the request, decompressed.
            is_json: it is JSON, not protobuf.
            now: UNIX seconds, for records without a time.

        Raises:
            MalformedRequest: it cannot be read.
            RequestTooLarge: its events are too large together.
            TooManyFields: it has too many fields.
        """
        result = RequestEvents()
        decoder = None if is_json else RequestDecoder(body)
        records = self._json_records(body, result) if decoder is None else self._records(decoder)
        digest = request_digest(body)
        now_text = format_time(now)
        expanded = 0
        while chunk := list(islice(records, _TURN)):
            self._counts.lines += len(chunk)
            for number, event, payload in self._encode(chunk, now, now_text):
                if number >= MAX_RECORDS:
                    raise RequestTooLarge(f"more than {MAX_RECORDS} records; send fewer in a request")
                if len(payload) > self._limit:
                    result.reject(1, f"larger than the {self._limit} bytes that NATS accepts")
                    continue
                expanded += len(payload)
                if expanded > MAX_EXPANDED_BYTES:
                    raise RequestTooLarge("the events of the request are too large together; send fewer")
                # A copy, as orjson keeps its buffer: 4.6 KB for an event of 217 bytes.
                payload = bytes(bytearray(payload))
                result.events.append(OutgoingEvent(event.subject, payload, f"{digest}-{number}"))
            await asyncio.sleep(0)
        self._counts.below_level = self._throttle.below_level
        self._counts.suppressed = self._throttle.suppressed
        if decoder is not None:
            result.reject(decoder.rejected, "a value is nested too deeply")
            self._counts.invalid += decoder.replaced
        return result

    def _records(self, decoder: RequestDecoder) -> Iterator[tuple[int, Fields]]:
        for number, (record, resource, scope) in decoder.records():
            service = resource.get("service.name") if isinstance(resource, dict) else None
            yield number, map_record(record, service, self._mapping, shared_metadata(resource, scope))

    def _json_records(self, body: bytes, result: RequestEvents) -> Iterator[tuple[int, Fields]]:
        """Yield the records of a request in JSON.

        Raises:
            MalformedRequest: it is not JSON, or not a request.
        """
        try:
            request = None if strict_json.is_deeper(body, MAX_JSON_DEPTH) else orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise MalformedRequest(f"the request is not JSON: {error}") from None
        if not isinstance(request, dict) or not isinstance(request.get("resourceLogs", []), list):
            raise MalformedRequest("the request is not an object with resourceLogs, or nested too deeply")
        for number, fields in enumerate(read_json(request, self._mapping)):
            if fields is None:
                result.reject(1, "a record is not an object")
            else:
                yield number, fields

    def _encode(
        self, chunk: list[tuple[int, Fields]], now: float, now_text: str
    ) -> Iterator[tuple[int, ParsedEvent, bytes]]:
        """Yield the events that are to be stored, encoded and without secrets."""
        found = []
        for number, (level, message, source, timestamp, metadata) in chunk:
            event = ParsedEvent(
                level or DEFAULT_LEVEL, message, source or self._source, timestamp or now_text, metadata
            )
            if self._throttle.admit(event, now):
                found.append((number, event, self._encode_event(event)))
        suspects = self._find_suspects([payload for _, _, payload in found])
        for index, (number, event, payload) in enumerate(found):
            if index in suspects:
                self._redact(event)
                payload = self._encode_event(event)
            yield number, event, payload

    def _encode_event(self, event: ParsedEvent) -> bytes:
        payload = event.encode()
        if payload.endswith(_TRUNCATED) and "truncated" not in event.metadata:
            # It is not nested too deeply any more, if it has to be redacted.
            event.metadata = {"truncated": True}
            self._counts.truncated += 1
        return payload

    def _find_suspects(self, payloads: list[bytes]) -> set[int] | range:
        """Return the indexes of events in which there may be secrets, or control characters."""
        if self._redactor.checks_all_lines:
            return range(len(payloads))
        block = b"\n".join(payloads)
        suspects = set[int]()
        match = _SUSPECT.search(block)
        if match is None:
            return suspects
        starts = list(accumulate((len(payload) + 1 for payload in payloads), initial=0))
        while match is not None:
            # A match may begin with the line break before its event.
            index = bisect_right(starts, match.end() - 1) - 1
            suspects.add(index)
            if starts[index + 1] >= len(block):
                break
            match = _SUSPECT.search(block, starts[index + 1] - 1)
        return suspects

    def _redact(self, event: ParsedEvent) -> None:
        redact: Any = self._redactor.redact_value
        event.message = redact(event.message)
        event.source = legal_source(redact(event.source)) or self._source
        event.metadata = redact(event.metadata)
        fix = fix_messages.read_messages(event.message)
        if fix is not None:
            event.metadata.setdefault("fix", fix)
