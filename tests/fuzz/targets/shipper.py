"""Targets: lines of log files, and the files in which a shipper keeps its progress."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from tickertape.contracts.decode import decode
from tickertape.contracts.events import MAX_EVENT_BYTES, Rejection, parse_time
from tickertape.producers.shipper.lines.encoded_lines import EncodedLines
from tickertape.producers.shipper.parsing.formats import FORMATS
from tickertape.producers.shipper.parsing.own_formats.own_format import FormatTable, compile_format
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.parsing.timestamps import TimestampParser
from tickertape.producers.shipper.redaction.redactor import Redactor
from tickertape.producers.shipper.sinks import sink
from tickertape.producers.shipper.sinks.local_state import CheckpointError, LocalState

from tests.fuzz.targets.texts import check_text

NOW: Final = 1_750_000_000.0
_ZONE: Final = ZoneInfo("Europe/Berlin")
_ENCODINGS: Final = ("auto", "utf-16", "auto", "gb18030")
_OWN: Final = compile_format(
    "own",
    FormatTable(
        pattern=r"(?P<time>[^|]*)\|(?P<level>\w?)\|(?P<token>[^|]*)\|\C?(?P<message>.*)",
        time="%d/%b/%y %H:%M:%S.%f %Z",
        levels={"E": "ERROR"},
    ),
)
_SECRETS: Final = ("AKIAIOSFODNN7EXAMPLE", "ghp_0123456789abcdefABCDEF0123456789abcd")
_folder = tempfile.TemporaryDirectory(prefix="tickertape-fuzz-")


def lines(data: bytes) -> None:
    """Check that events do not depend on the chunks, satisfy the contract, and follow one another."""
    kind, size, data = (data[0], data[1] % 40 + 1, data[2:]) if len(data) > 2 else (0, 1, data)
    settings = ParseSettings(
        format=FORMATS[kind % len(FORMATS)],
        zone=_ZONE,
        multiline="auto" if kind & 64 else "off",
        encoding=_ENCODINGS[kind // 8 % len(_ENCODINGS)],
        own_formats=(_OWN,) if kind & 128 else (),
    )
    complete = _parse(settings, [data])
    assert _parse(settings, [data[start : start + size] for start in range(0, len(data), size)]) == complete
    ends = [event.end for event in complete]
    assert ends == sorted(set(ends))
    for event in complete:
        payload = event.encode()
        assert len(payload) <= MAX_EVENT_BYTES
        decoded = decode(event.subject, payload)
        assert not isinstance(decoded, Rejection), str(decoded)


def _parse(settings: ParseSettings, chunks: list[bytes]) -> list[ParsedEvent]:
    parser, offset = Parser(settings, "source", ParserCounts()), 0
    buffer = EncodedLines(parser.decoder)
    buffer.restart(0, b"", "")
    found = list[ParsedEvent]()
    for chunk in filter(None, chunks):
        lines, ends, truncated = buffer.split(chunk, offset)
        offset += len(chunk)
        found += parser.feed(lines, ends, NOW, truncated)
    if buffer:
        line, truncated = buffer.take()
        found += parser.feed([line], [offset], NOW, truncated)
    return found + parser.flush(NOW)


def timestamps(data: bytes) -> None:
    """Check that every result is a valid time in UTC, the same in every call."""
    text = data.decode("utf-8", "replace")
    for zone in (None, _ZONE):
        parser = TimestampParser(zone)
        parser.set_reference_time(NOW)
        found = parser.parse_text(text)
        assert parser.parse_text(text) == found
        if found is not None:
            assert found.endswith("Z")
            parse_time(found)
            assert parser.parse_value(found) == found


def redactor(data: bytes) -> None:
    """Check that no text around a secret hides it, and that a secret is redacted once."""
    text = data.decode("utf-8", "replace")
    for secret in _SECRETS:
        for around in (f"{text}\n{secret}\n{text}", f"{text} {secret} {text}"):
            counts = Counter[str]()
            redacted = Redactor(counts).redact_text(around)
            assert secret not in redacted
            assert counts
    value = {"password": text, "a": [text, {"token": [text]}]}
    redacted_value = Redactor(Counter()).redact_value(value)
    assert not text.strip() or len(text) < 8 or redacted_value["password"] != text or "redacted" in text


def checkpoint(data: bytes) -> None:
    """Check that a checkpoint is invalid, or the same after it is written again."""
    try:
        found = sink.decode(data)
    except ValueError as error:
        check_text(str(error), 100_000)
        return
    assert sink.decode(found.encode("host")) == found


def local_state(data: bytes) -> None:
    """Check that a state file is rejected as damaged, or the same after it is written again."""
    state = LocalState(Path(_folder.name), "key")
    try:
        state.path.write_bytes(data)
        found = state.load()
        state.save({path: one.encode("host") for path, one in found.items()})
        assert state.load() == found
    except CheckpointError as error:
        check_text(str(error), 100_000)
    finally:
        state.close()
