"""HTTP server for OpenTelemetry's log requests (OTLP/HTTP).

Invariants:

1. A request is answered with 200 only when JetStream has acknowledged its events.
2. There are ``MAX_CONNECTIONS`` connections and ``MAX_WAITING_BYTES`` of requests at most; beyond them,
   senders are asked to send again later.
3. A body has ``MAX_BODY_BYTES`` at most, as it is sent and decompressed; nothing beyond them is decompressed.
4. A connection ends in time, whatever its client sends or reads.
5. Pages of a browser cannot send requests: those with an origin are rejected.
"""

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import h11
from tickertape.producers.shipper.otlp.address import OtlpAddress
from tickertape.producers.shipper.otlp.messages import (
    BadRequest,
    Response,
    TooLarge,
    check_head,
    decompress,
    describe_failure,
    describe_success,
)
from tickertape.producers.shipper.otlp.records import RecordReader, RequestTooLarge, request_digest
from tickertape.producers.shipper.otlp.store import RecordStore, StoreUnavailable
from tickertape.producers.shipper.otlp.wire import TooManyFields, WireError
from tickertape.producers.shipper.sinks.sink import OutgoingEvent

from tickertape.net.addresses import resolve
from tickertape.net.listeners import bound_address, listen_error
from tickertape.rate_limit import RepeatFilter

MAX_CONNECTIONS: Final = 256
"""Concurrent connections of senders."""

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a request, as it is sent and decompressed."""

MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the requests that are read or stored at the same time."""

IDLE_TIMEOUT: Final = 60.0
"""Seconds that a connection may wait for its next request."""

BODY_TIMEOUT: Final = 30.0
"""Seconds that a client has to send a request, from its first byte on."""

RESPONSE_TIMEOUT: Final = 10.0
"""Seconds that a client has to read a response, or to end a request that is rejected before its end."""

_MAX_HEAD_BYTES: Final = 16 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_BACKLOG: Final = 128
_RETRY_AFTER: Final = 2  # seconds
_REPORT_INTERVAL: Final = 60.0

OnStored = Callable[[list[OutgoingEvent], int], None]
"""Function that is called with the events that are stored, and the number of those that were rejected."""


class OtlpServer:
    """Server of one address.

    Args:
        reader: reads the records of requests.
        store: stores their events.
        warn: called with a line for the operator.
    """

    def __init__(self, reader: RecordReader, store: RecordStore, warn: Callable[[str], None]) -> None:
        self.on_stored: OnStored = lambda events, rejected: None
        self._reader = reader
        self._store = store
        self._warn = warn
        self._reports = RepeatFilter(_REPORT_INTERVAL)
        self._waiting_bytes = 0
        # Outcomes of requests in progress: a sender may lose patience, and send the same again.
        self._pending: dict[str, asyncio.Future[tuple[int, str]]] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    async def open(self, address: OtlpAddress) -> list[str]:
        """Listen on an address; return it with its port, for each address of the host.

        Raises:
            ListenError: it is not available.
        """
        try:
            for family, target in resolve(address.host, address.port):
                listener = socket.socket(family, socket.SOCK_STREAM)
                self._sockets.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.setblocking(False)
                listener.bind(target)
                server = await asyncio.start_server(
                    self._serve, sock=listener, limit=_CHUNK_BYTES, backlog=_BACKLOG
                )
                self._servers.append(server)
        except OSError as error:
            self.close()
            raise listen_error(error, str(address), "--otlp port") from None
        return [bound_address(listener) for listener in self._sockets]

    def close(self) -> None:
        """Stop listening, and close all connections."""
        for server in self._servers:
            server.close()
        for writer in self._connections:
            writer.transport.abort()
        for listener in self._sockets:
            listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._report(f"OTLP: more than {MAX_CONNECTIONS} connections; further ones are closed")
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
            while await self._serve_request(http, reader, writer):
                http.start_next_cycle()
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # the sender is gone, too slow, or does not read
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    async def _serve_request(
        self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve one request; return whether the connection can be used for another."""
        if not http.trailing_data[0]:
            async with asyncio.timeout(IDLE_TIMEOUT):
                if not (data := await reader.read(_CHUNK_BYTES)):
                    return False
            http.receive_data(data)
        is_json = False
        held = [0]
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                request = await _next_event(http, reader)
                if not isinstance(request, h11.Request):
                    return False
                head = check_head(request)
                is_json = head.is_json
                if head.length > MAX_BODY_BYTES:
                    raise TooLarge(f"the request has more than {MAX_BODY_BYTES} bytes; send smaller batches")
                if http.they_are_waiting_for_100_continue:
                    writer.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                body = await self._read_body(http, reader, held)
            response = await self._store_request(decompress(body, head.encoding, MAX_BODY_BYTES), is_json)
        except h11.RemoteProtocolError as error:
            response = describe_failure(error.error_status_hint, "the request violates HTTP", False)
        except BadRequest as error:
            response = describe_failure(error.status, str(error), is_json or error.is_json)
        except StoreUnavailable as error:
            response = describe_failure(HTTPStatus.SERVICE_UNAVAILABLE, str(error), is_json)
        finally:
            self._waiting_bytes -= held[0]
        return await self._send(http, reader, writer, response)

    async def _read_body(self, http: h11.Connection, reader: asyncio.StreamReader, held: list[int]) -> bytes:
        """Read the body of a request.

        Args:
            held: receives the bytes that count as waiting.

        Raises:
            TooLarge: it has too many bytes.
            StoreUnavailable: too many bytes of other requests wait.
        """
        body = bytearray()
        while isinstance(event := await _next_event(http, reader), h11.Data):
            body += event.data
            held[0] += len(event.data)
            self._waiting_bytes += len(event.data)
            if len(body) > MAX_BODY_BYTES:
                raise TooLarge(f"the request has more than {MAX_BODY_BYTES} bytes; send smaller batches")
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._report("OTLP: requests arrive faster than NATS stores them; senders are asked to wait")
                raise StoreUnavailable("too many requests are waiting")
        return bytes(body)

    async def _store_request(self, body: bytes, is_json: bool) -> Response:
        """Store the records of a request; return the response.

        Raises:
            StoreUnavailable: they are not stored, or not all.
            BadRequest: the request is not valid.
        """
        if not self._store.online:
            raise StoreUnavailable("NATS is unreachable")
        digest = request_digest(body)
        pending = self._pending.get(digest)
        if pending is None:
            pending = self._pending[digest] = asyncio.ensure_future(self._store_records(body, is_json))
            pending.add_done_callback(functools.partial(self._end_pending, digest))
        rejected, problem = await asyncio.shield(pending)
        return describe_success(rejected, problem, is_json)

    def _end_pending(self, digest: str, pending: "asyncio.Future[tuple[int, str]]") -> None:
        del self._pending[digest]
        if not pending.cancelled():
            pending.exception()  # the sender may be gone

    async def _store_records(self, body: bytes, is_json: bool) -> tuple[int, str]:
        try:
            found = await self._reader.read(body, is_json=is_json, now=time.time())
        except (RequestTooLarge, TooManyFields) as error:
            raise TooLarge(str(error)) from None
        except (WireError, ValueError) as error:
            raise BadRequest(HTTPStatus.BAD_REQUEST, str(error)) from None
        rejected = await self._store.store(found.events)
        if rejected:
            found.reject(len(rejected), rejected[-1][1])
        refused = {event.id for event, _ in rejected}
        self.on_stored([event for event in found.events if event.id not in refused], found.rejected)
        if found.rejected:
            self._report(f"OTLP: records were rejected, the last because: {found.problem}")
        return found.rejected, found.problem

    async def _send(
        self,
        http: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        response: Response,
    ) -> bool:
        """Send a response; return whether the connection can be used for another request."""
        is_complete = http.their_state is h11.DONE
        headers = [
            ("Content-Type", response.media),
            ("Content-Length", str(len(response.body))),
            *([] if is_complete else [("Connection", "close")]),
            *([("Allow", "POST")] if response.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
        ]
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", str(_RETRY_AFTER)))
        parts = [
            http.send(h11.Response(status_code=response.status, headers=headers)),
            http.send(h11.Data(data=response.body)) if response.body else b"",
            http.send(h11.EndOfMessage()),
        ]
        async with asyncio.timeout(RESPONSE_TIMEOUT):
            writer.write(b"".join(part or b"" for part in parts))
            await writer.drain()
            if is_complete and http.our_state is h11.DONE:
                return True
            # A client that is still sending would lose the response if the connection was reset.
            with contextlib.suppress(OSError):
                writer.write_eof()
            left = MAX_BODY_BYTES
            while left > 0 and (data := await reader.read(_CHUNK_BYTES)):
                left -= len(data)
        return False

    def _report(self, text: str) -> None:
        if self._reports.allow(text.partition(",")[0], asyncio.get_running_loop().time()):
            self._warn(text)


async def _next_event(http: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_CHUNK_BYTES))
    return event
