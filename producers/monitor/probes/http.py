"""The ``http`` probe: one request, and what its answer must be. Only so much of the body is ever read."""

import asyncio
import errno
import time
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import h11
import orjson
from pydantic import Field, model_validator
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CHUNK, answered, close, failed
from tickertape.producers.monitor.probes.settings import UrlProbe
from tickertape.producers.monitor.probes.tls import expiry, trust
from tickertape.producers.monitor.types import HttpUrl

from tickertape.process.stream_writer import write

MAX_BODY_BYTES: Final = 64 * 1024
"""Body of an answer that is read when nothing in it is looked for; the rest says nothing more."""

MAX_SEARCHED_BYTES: Final = 1024 * 1024
"""Body of an answer that is looked into."""

_ABSENT: Final = object()


Code = Annotated[int, Field(ge=100, le=599, strict=True)]


class HttpProbe(UrlProbe):
    """Asks for ``url`` and wants ``status``, and what ``body`` and ``json`` say in the answer."""

    kind: Literal["http"]
    url: HttpUrl
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    status: Code | Annotated[list[Code], Field(min_length=1)] = 200
    headers: dict[str, str] = Field(default={}, repr=False)
    body: str | None = None
    """Text that the answer's body must hold."""
    json_: dict[str, Any] = Field(default={}, alias="json")
    """Values that the body's JSON must have, by path: ``status`` or ``checks.market_data``."""

    @property
    def wanted(self) -> tuple[int, ...]:
        """Statuses that are well."""
        return (self.status,) if isinstance(self.status, int) else tuple(self.status)

    @model_validator(mode="after")
    def _body_is_read(self) -> "HttpProbe":
        if self.method == "HEAD" and (self.body is not None or self.json_):
            raise ValueError("an answer to HEAD has no body; use GET, or take 'body' and 'json' out")
        return self

    async def probe(self, limit: float, context: ProbeContext) -> Result:
        url = urlsplit(self.url)
        secure = url.scheme == "https"
        port = url.port or (443 if secure else 80)
        clock = time.monotonic  # the loop's own clock stands still within a turn
        began = clock()
        writer: asyncio.StreamWriter | None = None
        expires = None
        try:
            async with asyncio.timeout(limit):
                reader, writer = await asyncio.open_connection(
                    url.hostname, port, ssl=trust() if secure else None, limit=CHUNK
                )
                expires = expiry(writer)
                status, body = await _ask(self, reader, writer)
        finally:
            if writer is not None:
                await close(writer)
        latency = clock() - began
        if status not in self.wanted:
            return failed(f"answered {status}, wanted {' or '.join(map(str, self.wanted))}", latency)
        if (wrong := _mismatch(self, body)) is not None:
            return failed(wrong, latency)
        return answered(latency, self.degraded_above, expires)


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
    write(
        writer,
        http.send(h11.Request(method=probe.method, target=target, headers=list(headers.items()))) or b"",
    )
    write(writer, http.send(h11.EndOfMessage()) or b"")
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
