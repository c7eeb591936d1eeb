"""Targets: the monitor's file, and what gateways and other monitors send to it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, cast

import h11
from tickertape.contracts.events import parse_time
from tickertape.producers.monitor.config.loader import load_source
from tickertape.producers.monitor.config.problems import MonitorFileError
from tickertape.producers.monitor.coordination.recovery_events import parse_recovery
from tickertape.producers.monitor.coordination.stored_status import parse_stored_status
from tickertape.producers.monitor.probes.fix.messages import (
    MAX_MESSAGE_BYTES,
    FixError,
    MessageReader,
    encode_message,
    parse_fields,
)
from tickertape.producers.monitor.probes.http import HttpProbe, _find_mismatch

from tests.fuzz.targets.texts import check_text
from tickertape.net.http_client import HttpError, Response, _exchange

_LIMIT = 2_000
_folder = tempfile.TemporaryDirectory(prefix="tickertape-fuzz-")
_file = Path(_folder.name) / "gateways.yaml"
_http = HttpProbe.model_validate(
    {
        "kind": "http",
        "url": "http://127.0.0.1/",
        "body": "ok",
        "json": {"a.0.b": 1, "c": True},
        "json_path": [{"path": "$..c", "below": 1}],
    }
)


def monitor_file(data: bytes) -> None:
    """Check that a file yields gateways with probes, or problems with their lines."""
    _file.write_bytes(data)
    try:
        source = load_source(_file)
    except MonitorFileError as error:
        problems = error.problems
    else:
        gateways = source.config.resolve_gateways()
        assert len({gateway.id for gateway in gateways}) == len(gateways) == len(source.config.gateways)
        assert all(gateway.checks for gateway in gateways)
        return
    assert problems
    for problem in problems:
        assert 0 <= problem.line <= len(data.splitlines()) + 2
        check_text(str(problem), 5_000)


class _Writer:
    """Writer that discards everything."""

    def write(self, data: bytes) -> None:
        """Discard bytes."""

    async def drain(self) -> None:
        """Return immediately."""

    def is_closing(self) -> bool:
        """Return False."""
        return False


def _reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 16)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def fix_response(data: bytes) -> None:
    """Check that a session ends with an error or with valid messages, which survive being encoded again."""

    async def receive() -> list[dict[int, str]]:
        reader = MessageReader(_reader(data))
        found = []
        try:
            while True:
                found.append(await reader.read())
        except FixError as error:
            check_text(str(error))
        assert len(reader._buffer) <= MAX_MESSAGE_BYTES + (1 << 16)
        return found

    for fields in asyncio.run(receive()):
        assert {8, 9} <= fields.keys()
        begin = fields.get(8, "FIX.4.4")
        body = [(tag, value) for tag, value in fields.items() if tag not in (8, 9, 10)]
        if all("\ufffd" not in value for value in (begin, *fields.values())):
            again = parse_fields(encode_message(begin, body))
            assert {tag: again.get(tag) for tag, _ in body} == dict(body)


def http_response(data: bytes) -> None:
    """Check that a response is an error of the right type, or is bounded and can be compared."""

    async def exchange() -> Response | None:
        try:
            request = h11.Request(method="GET", target="/", headers=[("Host", "127.0.0.1")])
            return await _exchange(_reader(data), cast(Any, _Writer()), request, b"", _LIMIT, None)
        except (h11.ProtocolError, HttpError) as error:
            check_text(str(error))
            return None

    response = asyncio.run(exchange())
    if response is not None:
        assert 200 <= response.status < 1_000
        assert len(response.body) <= _LIMIT
        assert all(name == name.lower() for name in response.headers)
        _check_mismatch(response)
    _check_mismatch(Response(200, (), b"ok" + data, False, None))


def _check_mismatch(response: Response) -> None:
    text = _find_mismatch(_http, response, {"password": "hunter2"}) or ""
    text.encode("utf-8", "surrogatepass")
    assert "hunter2" not in text


def stored_status(data: bytes) -> None:
    """Check that a status is ignored, or has valid times and texts."""
    subject, _, payload = data.partition(b"\n")
    text = subject.decode("utf-8", "surrogateescape")
    found = parse_stored_status(text, payload, 1)
    assert found is None or parse_recovery(text, payload) is None
    if found is not None:
        parse_time(found.since)
        assert found.sequence == 1
