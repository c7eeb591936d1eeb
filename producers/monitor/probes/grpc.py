"""Probe ``grpc``: one call of ``grpc.health.v1.Health/Check``, the standard health check of gRPC servers.

A call is one HTTP/2 request: ``h2`` encodes it, and the two messages have one field each.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote

from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.options.patterns import show
from tickertape.producers.monitor.probes.options.secrets import HeaderOptions, RequestHeaders
from tickertape.producers.monitor.probes.options.tls import OptionalTls
from tickertape.producers.monitor.probes.result import answered, failed
from tickertape.producers.monitor.probes.settings import AddressProbe

from tickertape.errors import TickertapeError
from tickertape.net.http_client import CHUNK, close
from tickertape.net.outgoing import open_connection, write

if TYPE_CHECKING:
    from h2.connection import H2Connection

PATH: Final = "/grpc.health.v1.Health/Check"

MAX_RECEIVED_BYTES: Final = 64 * 1024
"""Bytes received before the response counts as missing."""

PIECE: Final = 2 * 1024
"""Bytes that are parsed in one turn of the event loop."""

_SETTINGS_FRAME: Final = 4
"""Type of the frame with which a connection of HTTP/2 begins."""

_GOAWAY_FRAME: Final = 7
_FRAME_HEAD_BYTES: Final = 9

_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class GrpcError(TickertapeError):
    """Failure of a call."""


class GrpcProbe(HeaderOptions, OptionalTls, AddressProbe):
    """Health check of a gRPC server, or of one of its services, which must be SERVING."""

    kind: Literal["grpc"]
    service: str = ""
    """Name of the service; empty for the server as a whole."""

    @property
    def name(self) -> str:
        return self.label or f"{self.kind} {self.address} {self.service}".rstrip()

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        headers = self.read_headers()
        host, port = self.endpoint
        tls = self.ssl_context(("h2",)) if self.tls else None
        async with asyncio.timeout(time_limit):
            reader, writer = await open_connection(
                host, port, tls=tls, server_name=self.server_name, limit=CHUNK
            )
            try:
                status = await _check_health(self, reader, writer, headers, time_limit)
            except GrpcError as error:
                return failed(str(error))
            finally:
                await close(writer)
        latency = clock() - started
        if status != "SERVING":
            return failed(
                f"{f'service {self.service!r}' if self.service else 'server'} is {status}, expected SERVING"
            )
        return answered(latency, self.degraded_above)


async def _check_health(
    probe: GrpcProbe,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    headers: RequestHeaders,
    time_limit: float,
) -> str:
    """Call the health check, and return the status.

    Raises:
        GrpcError: the call failed; OSError: the connection failed.
    """
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    fields = [
        (":method", "POST"),
        (":scheme", "https" if probe.tls else "http"),
        (":path", PATH),
        (":authority", probe.server_name or probe.address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "tickertape-monitor"),
        ("grpc-timeout", f"{max(1, int(time_limit * 1000))}m"),
    ]
    fields += [(name.lower(), value) for name, value in headers.all.items()]
    name = probe.service.encode()
    message = b"\x0a" + _encode_number(len(name)) + name if name else b""
    connection.send_headers(1, fields)
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    write(writer, connection.data_to_send())
    call = _Call(headers.secrets)
    try:
        while not call.ended:
            data = await reader.read(PIECE)
            await asyncio.sleep(0)  # the read itself does not suspend while bytes are buffered
            call.receive(connection, data)
            write(writer, connection.data_to_send())
    except ProtocolError:
        raise GrpcError(f"response is not HTTP/2: received {show(call.text, headers.secrets)}") from None
    return call.status()


class _Call:
    """Response to a call, as far as it has been received."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.ended = False
        self._secrets = secrets
        self._received = b""
        self._parsed = 0
        self._fields: dict[str, str] = {}
        self._body = b""

    @property
    def text(self) -> str:
        """The received bytes as text, for errors."""
        return self._received.decode("latin-1")

    def receive(self, connection: "H2Connection", data: bytes) -> None:
        """Parse received bytes, none of which are the end of the connection.

        Raises:
            GrpcError: the response has failed; ProtocolError: it is not HTTP/2.
        """
        if not data:
            raise GrpcError("peer closed the connection without a response")
        self._received += data
        if len(self._received) > MAX_RECEIVED_BYTES:
            raise GrpcError(f"no end of the response in the first {MAX_RECEIVED_BYTES} bytes")
        # h2 would wait for the end of the frame, which another protocol may announce as megabytes away.
        if len(self._received) > 3 and self._received[3] != _SETTINGS_FRAME:
            raise GrpcError(f"response is not HTTP/2: received {show(self.text, self._secrets)}")
        while (frame := self._next_frame()) is not None:
            # A server that shuts down answers the call first, but h2 would reject what follows.
            if not _is_graceful_end(frame):
                self._receive_frame(connection, frame)

    def _next_frame(self) -> bytes | None:
        """Return the next frame that has been received as a whole."""
        head = self._received[self._parsed : self._parsed + _FRAME_HEAD_BYTES]
        end = self._parsed + _FRAME_HEAD_BYTES + int.from_bytes(head[:3], "big")
        if len(head) < _FRAME_HEAD_BYTES or len(self._received) < end:
            return None
        frame, self._parsed = self._received[self._parsed : end], end
        return frame

    def _receive_frame(self, connection: "H2Connection", frame: bytes) -> None:
        from h2 import events

        for event in connection.receive_data(frame):
            match event:
                case events.ResponseReceived() | events.TrailersReceived():
                    for name, value in event.headers or ():
                        self._fields[_to_text(name)] = _to_text(value)
                case events.DataReceived():
                    self._body += event.data or b""
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                case events.StreamEnded():
                    self.ended = True
                case events.StreamReset():
                    raise GrpcError(f"call reset by the peer with {_name(event.error_code)}")
                case events.ConnectionTerminated():
                    reason = "it shuts down" if event.error_code == 0 else _name(event.error_code)
                    raise GrpcError(f"connection ended by the peer: {reason}")

    def status(self) -> str:
        """Return the health that the response contains.

        Raises:
            GrpcError: it contains none.
        """
        if self._fields.get(":status") != "200":
            raise GrpcError(f"HTTP status is {self._fields.get(':status')}, expected 200")
        code = self._fields.get("grpc-status", "")
        if code != "0":
            name = _CODES[int(code)] if code.isdecimal() and int(code) < len(_CODES) else f"{code[:20]!r}"
            message = unquote(self._fields.get("grpc-message", ""))
            reason = f": {show(message, self._secrets)}" if message else ""
            raise GrpcError(f"gRPC status is {name}, expected OK{reason}")
        if self._body[:1] != b"\0" or int.from_bytes(self._body[1:5], "big") != len(self._body) - 5:
            raise GrpcError(
                f"response is not a message of gRPC: received {show(self._body.decode('latin-1'), {})}"
            )
        number = _parse_status(self._body[5:])
        return _STATUSES[number] if number < len(_STATUSES) else f"status {number}"


def _is_graceful_end(frame: bytes) -> bool:
    """Return whether a frame announces the end of the connection, but includes the call (stream 1)."""
    last_stream = int.from_bytes(frame[9:13], "big") & 0x7FFFFFFF
    return frame[3] == _GOAWAY_FRAME and last_stream >= 1 and frame[13:17] == bytes(4)


def _name(code: object) -> str:
    """Return the name of an error code of HTTP/2."""
    return str(getattr(code, "name", code))


def _to_text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _encode_number(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded, number = encoded + bytes([number & 0x7F | 0x80]), number >> 7
    return encoded + bytes([number])


def _parse_status(message: bytes) -> int:
    """Return field 1 of a message of protocol buffers that has no other fields; 0 without one.

    Raises:
        GrpcError: the message is another one.
    """
    if not message:
        return 0
    number = 0
    for index, byte in enumerate(message[1:6]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80 and message[0] == 0x08:
            return number
    raise GrpcError(
        f"response is not a message of the health check: received {show(message.decode('latin-1'), {})}"
    )
