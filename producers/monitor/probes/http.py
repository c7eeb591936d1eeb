"""The ``http`` probe: one request, and what its answer must be. Only so much of the body is ever read."""

import asyncio
import errno
import time
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import orjson
from tickertape.producers.monitor.config.probes import HttpProbe
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.result import CHUNK, answered, close, failed
from tickertape.producers.monitor.probes.tls import context, expiry

MAX_BODY_BYTES: Final = 64 * 1024
"""Body of an answer that is read when nothing in it is looked for; the rest says nothing more."""

MAX_SEARCHED_BYTES: Final = 1024 * 1024
"""Body of an answer that is looked into."""

_ABSENT: Final = object()


async def look(probe: HttpProbe, limit: float) -> Result:
    """Probe once, within ``limit`` seconds."""
    url = urlsplit(probe.url)
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    clock = time.monotonic  # the loop's own clock stands still within a turn
    began = clock()
    writer: asyncio.StreamWriter | None = None
    expires = None
    try:
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(
                url.hostname, port, ssl=context() if secure else None, limit=CHUNK
            )
            expires = expiry(writer)
            status, body = await _ask(probe, reader, writer)
    finally:
        if writer is not None:
            await close(writer)
    latency = clock() - began
    if status not in probe.wanted:
        return failed(f"answered {status}, wanted {' or '.join(map(str, probe.wanted))}", latency)
    if (wrong := _mismatch(probe, body)) is not None:
        return failed(wrong, latency)
    return answered(latency, probe.degraded_above, expires)


async def _ask(
    probe: HttpProbe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, bytes]:
    """Send one request, read its answer to the end or to the bound."""
    url = urlsplit(probe.url)
    http = h11.Connection(h11.CLIENT)
    headers = {"Host": url.netloc, "User-Agent": "tickertape-monitor", "Accept": "*/*", **probe.headers}
    headers["Connection"] = "close"
    if probe.method == "POST":
        headers["Content-Length"] = "0"
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    writer.write(
        http.send(h11.Request(method=probe.method, target=target, headers=list(headers.items()))) or b""
    )
    writer.write(http.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    most = MAX_SEARCHED_BYTES if probe.body is not None or probe.json_ else MAX_BODY_BYTES
    status = 0
    body = bytearray()
    while len(body) <= most:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(CHUNK)
            if not data and not status:
                raise ConnectionAbortedError(errno.ECONNABORTED, "peer closed without an answer")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)) or event is h11.PAUSED:
            break
    return status, bytes(body[:most])


def _mismatch(probe: HttpProbe, body: bytes) -> str | None:
    if probe.body is not None and probe.body.encode() not in body:
        return f"its answer does not hold {probe.body!r}"
    if not probe.json_:
        return None
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "its answer is no JSON"
    for path, wanted in probe.json_.items():
        value = _at(found, path)
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            said = "is absent" if value is _ABSENT else f"is {value!r:.60}"
            return f"{path} {said}, wanted {wanted!r:.60}"
    return None


def _at(body: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(body, dict) and name in body:
            body = body[name]
        elif isinstance(body, list) and name.isdigit() and int(name) < len(body):
            body = body[int(name)]
        else:
            return _ABSENT
    return body
