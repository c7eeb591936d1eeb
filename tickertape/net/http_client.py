"""One HTTP request with a deadline for the whole exchange, a bounded response, and no redirects.

The deadline covers the look-up of the name, the connection, TLS, the request and every read: a server that
sends one byte per second cannot exceed it, and cancelling the request closes its connection. A server that
sends as fast as it can does not block the event loop, however small its chunks are.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import h11

from tickertape.errors import TickertapeError
from tickertape.net.outgoing import open_connection, write

CHUNK: Final = 16 * 1024
"""Bytes per read from a connection."""

PIECE: Final = 2 * 1024
"""Bytes that are parsed in one turn of the event loop: they may contain hundreds of chunks or responses."""

MAX_FRAMING: Final = 64 * 1024
"""Bytes of a response in addition to twice the maximum body: heads, sizes of chunks and trailers."""

CLOSE_GRACE: Final = 0.5
"""Seconds for a connection to close."""

_NO_BODY: Final[Mapping[str, str]] = {}


class HttpError(TickertapeError, ConnectionError):
    """Error for a response that is not HTTP, or a connection that ended without one."""


@dataclass(frozen=True, slots=True)
class Response:
    """Response to a request.

    Attributes:
        status: status code.
        headers: values by their names in lower case; of a repeated header, the last.
        body: body, truncated at the limit.
        truncated: whether the body is longer than the limit.
        expires: expiry of the server's certificate, UNIX seconds; None without TLS.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    expires: float | None


class _Source:
    """Bytes of a response, in small pieces and up to a limit."""

    def __init__(self, reader: asyncio.StreamReader, limit: int) -> None:
        self._reader = reader
        self._left = limit

    async def read(self) -> bytes:
        """Return the next bytes, or none at the end of the connection.

        Raises:
            HttpError: the response exceeds the limit.
        """
        data = await self._reader.read(PIECE)
        await asyncio.sleep(0)  # the read itself does not suspend while bytes are buffered
        self._left -= len(data)
        if self._left < 0:
            raise HttpError("response consists of heads or tiny chunks without end")
        return data


async def fetch(
    url: str,
    seconds: float,
    max_bytes: int,
    *,
    method: str = "GET",
    headers: Mapping[str, str] = _NO_BODY,
    tls: ssl.SSLContext | None = None,
    proxies: bool = False,
) -> Response:
    """Send a request without a body.

    Args:
        url: address, http or https.
        seconds: deadline for the whole exchange.
        max_bytes: bytes of the body that are read.
        method, headers: of the request; ``Connection`` and ``Content-Length`` are added.
        tls: TLS context for https; None trusts the authorities of the system.
        proxies: whether to use the https proxy from the environment.

    Raises:
        TimeoutError: the exchange took too long.
        OSError: the connection, TLS or the response failed; ``outgoing.describe_failure`` describes it.
    """
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            if parts.scheme == "https" and tls is None:
                # In a thread, because reading all authorities of the system takes milliseconds.
                tls = await asyncio.to_thread(ssl.create_default_context)
            reader, writer = await _connect(parts, tls if parts.scheme == "https" else None, proxies)
            expires = certificate_expiry(writer)
            return await _exchange(reader, writer, parts, method, headers, max_bytes, expires)
    except h11.ProtocolError as error:
        text = "response is not HTTP" if isinstance(error, h11.RemoteProtocolError) else "request is invalid"
        raise HttpError(f"{text}: {error}") from None
    finally:
        if writer is not None:
            await close(writer)


def certificate_expiry(writer: asyncio.StreamWriter) -> float | None:
    """Return the expiry of the peer's certificate, UNIX seconds; None without TLS."""
    ssl_object = writer.get_extra_info("ssl_object")
    certificate = ssl_object.getpeercert() if ssl_object is not None else None
    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate else None


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection; abort it if the peer does not close its side in time."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_GRACE):
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()


async def _connect(
    url: SplitResult, tls: ssl.SSLContext | None, proxies: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert url.hostname is not None
    port = url.port or (443 if url.scheme == "https" else 80)
    proxy = getproxies().get("https") if proxies and tls is not None else None
    if not proxy or proxy_bypass(url.hostname):
        return await open_connection(url.hostname, port, tls=tls, limit=CHUNK)
    reader, writer = await _open_tunnel(proxy, f"{url.hostname}:{port}")
    try:
        await writer.start_tls(tls, server_hostname=url.hostname)  # type: ignore[arg-type]
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _open_tunnel(proxy: str, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = {"Host": target}
    if url.username is not None:
        user = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    reader, writer = await open_connection(url.hostname or "", url.port or 80, limit=CHUNK)
    try:
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method="CONNECT", target=target, headers=list(headers.items()))
        write(writer, http.send(request) or b"")
        status, _ = await _read_head(http, _Source(reader, MAX_FRAMING))
        if status != 200:
            raise HttpError(f"the proxy returned HTTP {status}")
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    url: SplitResult,
    method: str,
    headers: Mapping[str, str],
    max_bytes: int,
    expires: float | None,
) -> Response:
    http = h11.Connection(h11.CLIENT)
    # ``Connection`` comes after the caller's headers, which must not keep the connection open.
    sent = {"Host": url.netloc, "Accept": "*/*", **headers, "Connection": "close"}
    # Servers may reject these methods without a length (411).
    if method in ("POST", "PUT"):
        sent["Content-Length"] = "0"
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    request = h11.Request(method=method, target=target, headers=list(sent.items()))
    write(writer, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    source = _Source(reader, 2 * max_bytes + MAX_FRAMING)
    status, received = await _read_head(http, source)
    body = bytearray()
    while len(body) <= max_bytes:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await source.read())
        elif isinstance(event, h11.Data):
            body += event.data
        else:  # the end of the message or of the connection
            break
    return Response(status, received, bytes(body[:max_bytes]), len(body) > max_bytes, expires)


async def _read_head(http: h11.Connection, source: _Source) -> tuple[int, dict[str, str]]:
    """Read up to the end of the response's headers, whose size h11 limits to 16 KiB."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if not (data := await source.read()):
                raise HttpError("peer closed the connection without a response")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            return event.status_code, {
                name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers
            }
