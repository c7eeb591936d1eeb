"""One HTTP request with a deadline for the whole exchange, a bounded response, and no redirects.

The deadline covers the look-up of the name, the connection, TLS, the request and every read: a server that
sends one byte per second cannot exceed it, and cancelling the request closes its connection. A server that
sends as fast as it can does not block the event loop, however small its chunks are.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import h11

from tickertape.errors import TickertapeError
from tickertape.net.certificates import earliest_expiry
from tickertape.net.outgoing import PlainTextError, deadline, open_connection, start_tls, write
from tickertape.text import printable

CHUNK: Final = 16 * 1024
"""Bytes per read from a connection."""

PIECE: Final = 2 * 1024
"""Bytes that are parsed in one turn of the event loop: they may contain hundreds of chunks or responses."""

MAX_FRAMING: Final = 64 * 1024
"""Bytes of a response in addition to twice the maximum body: heads, sizes of chunks and trailers."""

CLOSE_GRACE: Final = 0.5
"""Seconds for a connection to close."""

MAX_SHOWN: Final = 60
"""Bytes of a response that is not HTTP in an error."""

_FIRST_BYTES: Final = b"HTTP/"
_NO_BODY: Final[Mapping[str, str]] = {}


class HttpError(TickertapeError, ConnectionError):
    """Error for a response that is not HTTP, or a connection that ended without one."""


@dataclass(frozen=True, slots=True)
class Response:
    """Response to a request.

    Attributes:
        status: status code.
        fields: names in lower case and values of the headers, in order.
        body: body, truncated at the limit.
        truncated: whether the body is longer than the limit.
        expires: earliest expiry of the server's certificates, UNIX seconds; None without TLS.
    """

    status: int
    fields: Sequence[tuple[str, str]]
    body: bytes
    truncated: bool
    expires: float | None

    @property
    def headers(self) -> Mapping[str, str]:
        """Values of the headers by their names in lower case; of a repeated header, the last."""
        return dict(self.fields)


class _Source:
    """Bytes of a response, in small pieces and up to a limit."""

    def __init__(self, reader: asyncio.StreamReader, limit: int) -> None:
        self._reader = reader
        self._left = limit
        self._begin = b""

    async def read(self) -> bytes:
        """Return the next bytes, or none at the end of the connection.

        Raises:
            HttpError: the response exceeds the limit, or is not HTTP.
        """
        data = await self._reader.read(PIECE)
        await asyncio.sleep(0)  # the read itself does not suspend while bytes are buffered
        self._left -= len(data)
        if self._left < 0:
            raise HttpError("response consists of heads or tiny chunks without end")
        if len(self._begin) < len(_FIRST_BYTES):
            # h11 would wait for the end of the head, which another protocol does not have.
            self._begin += data[:MAX_SHOWN]
            if not self._begin.startswith(_FIRST_BYTES[: len(self._begin)]):
                text = printable(self._begin[:MAX_SHOWN].decode("latin-1"))
                raise HttpError(f"response is not HTTP: received '{text}'")
        return data


async def fetch(
    url: str,
    seconds: float,
    max_bytes: int,
    *,
    method: str = "GET",
    headers: Mapping[str, str] = _NO_BODY,
    content: bytes = b"",
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    proxies: bool = False,
) -> Response:
    """Send a request.

    Args:
        url: address, http or https.
        seconds: deadline for the whole exchange.
        max_bytes: bytes of the body that are read.
        method, headers, content: of the request; ``Connection`` and ``Content-Length`` are added.
        tls: TLS context for https; None trusts the authorities of the system.
        server_name: name that the certificate must be valid for; None for the host.
        proxies: whether to use the https proxy from the environment.

    Raises:
        TimeoutError: the exchange took too long.
        OSError: the connection, TLS or the response failed; ``outgoing.describe_failure`` describes it.
    """
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with deadline(seconds):
            if parts.scheme == "https" and tls is None:
                # In a thread, because reading all authorities of the system takes milliseconds.
                tls = await asyncio.to_thread(ssl.create_default_context)
            reader, writer = await _connect(
                parts, tls if parts.scheme == "https" else None, server_name, proxies
            )
            expires = certificate_expiry(writer)
            request = _encode_request(parts, method, headers, content)
            return await _exchange(reader, writer, request, content, max_bytes, expires)
    except h11.ProtocolError as error:
        if isinstance(error, h11.RemoteProtocolError):
            raise HttpError(f"response is not HTTP: {error}") from None
        # Without the text of h11, which has the value of the header, such as a token.
        raise HttpError(
            "request is invalid: a header or the address has characters that HTTP forbids"
        ) from None
    except UnicodeEncodeError:
        raise HttpError("request is invalid: a header or the address has characters outside ASCII") from None
    finally:
        if writer is not None:
            await close(writer)


class ResponseStream:
    """Response whose body is read while it is sent, without a limit.

    Attributes:
        status: status code.
    """

    def __init__(self, reader: asyncio.StreamReader, http: h11.Connection, status: int) -> None:
        self.status = status
        self._reader = reader
        self._http = http

    async def read(self) -> bytes:
        """Return the next bytes of the body, or none at its end.

        Raises:
            HttpError: the connection has ended before the body.
            OSError: the connection has failed.
        """
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(f"response is incomplete: {error}") from None
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(CHUNK))
            elif isinstance(event, h11.Data):
                return bytes(event.data)
            else:  # the end of the message or of the connection
                return b""


@asynccontextmanager
async def open_stream(
    url: str, seconds: float, *, headers: Mapping[str, str] = _NO_BODY, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ResponseStream]:
    """Send a GET request, and read the body of the response while it is sent.

    Args:
        url: address, http or https; the https proxy from the environment is used.
        seconds: deadline up to the head of the response.
        headers: of the request.
        tls: TLS context for https.

    Raises:
        TimeoutError: there was no response in time.
        OSError: the connection, TLS or the response failed; ``outgoing.describe_failure`` describes it.
    """
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with deadline(seconds):
            reader, writer = await _connect(parts, tls if parts.scheme == "https" else None, None, True)
            http = h11.Connection(h11.CLIENT)
            request = http.send(_encode_request(parts, "GET", headers, b"")) or b""
            write(writer, request + (http.send(h11.EndOfMessage()) or b""))
            status, _ = await _read_head(http, _Source(reader, MAX_FRAMING))
        yield ResponseStream(reader, http, status)
    except h11.ProtocolError:
        # Without the text of h11, which may have the value of a header, such as a token.
        raise HttpError("request or response violates HTTP") from None
    finally:
        if writer is not None:
            writer.transport.abort()


def certificate_expiry(writer: asyncio.StreamWriter) -> float | None:
    """Return the earliest expiry of the peer's certificates, UNIX seconds; None without TLS."""
    return earliest_expiry(writer.get_extra_info("ssl_object"))


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
    url: SplitResult, tls: ssl.SSLContext | None, server_name: str | None, proxies: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert url.hostname is not None
    port = url.port or (443 if url.scheme == "https" else 80)
    proxy = getproxies().get("https") if proxies and tls is not None else None
    if not proxy or proxy_bypass(url.hostname):
        return await open_connection(url.hostname, port, tls=tls, server_name=server_name, limit=CHUNK)
    assert tls is not None
    reader, writer = await _open_tunnel(proxy, f"{url.hostname}:{port}")
    try:
        await start_tls(reader, writer, tls, server_name or url.hostname)
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
        # The proxy could otherwise answer in the place of the host behind it.
        if http.trailing_data[0]:
            raise PlainTextError(http.trailing_data[0])
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


def _encode_request(url: SplitResult, method: str, headers: Mapping[str, str], content: bytes) -> h11.Request:
    sent = {"host": ("Host", url.netloc), "accept": ("Accept", "*/*")}
    sent |= {name.lower(): (name, value) for name, value in headers.items()}
    # After the caller's headers, which must not keep the connection open.
    sent["connection"] = ("Connection", "close")
    # Servers may reject these methods without a length (411).
    if content or method in ("POST", "PUT", "PATCH"):
        sent["content-length"] = ("Content-Length", str(len(content)))
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return h11.Request(method=method, target=target, headers=list(sent.values()))


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: h11.Request,
    content: bytes,
    max_bytes: int,
    expires: float | None,
) -> Response:
    http = h11.Connection(h11.CLIENT)
    encoded = [http.send(request), http.send(h11.Data(data=content)) if content else b""]
    write(writer, b"".join(part or b"" for part in [*encoded, http.send(h11.EndOfMessage())]))
    await writer.drain()
    source = _Source(reader, 2 * max_bytes + MAX_FRAMING)
    status, fields = await _read_head(http, source)
    body = bytearray()
    while len(body) <= max_bytes:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await source.read())
        elif isinstance(event, h11.Data):
            body += event.data
        else:  # the end of the message or of the connection
            break
    return Response(status, fields, bytes(body[:max_bytes]), len(body) > max_bytes, expires)


async def _read_head(http: h11.Connection, source: _Source) -> tuple[int, list[tuple[str, str]]]:
    """Read up to the end of the response's headers, whose size h11 limits to 16 KiB."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if not (data := await source.read()):
                raise HttpError("peer closed the connection without a response")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            return event.status_code, [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
            ]
