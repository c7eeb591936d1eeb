"""nats-py's client, with what it lacks for us: TLS that is never left out, a connection never given up.

No message can end it: a parser of our own takes every subject, reply subject and header block that a
server forwards. Subjects that are not UTF-8 hold the bytes as lone surrogates (``surrogateescape``); who
takes subjects from others looks at ``tickertape.contracts.subjects.fault`` first, as ``decode`` does.

It steps into methods that nats-py calls on itself (2.16), since there is no other place for it:

* a server without TLS gets no credentials from a client that asked for TLS; nats-py would go on in the clear;
* the files of the access are read at each connection;
* what a server says when it turns a client away is heard;
* an error for which the server ends the connection, such as credentials that have expired, leads to another
  try; nats-py would close the client for good, and its user would wait for good;
* an exception in the read loop is a lost connection; nats-py would end the loop and stay "connected".
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import ParseResult

import orjson
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError, UnexpectedEOF

from tickertape.nats.connect_errors import (
    PermissionsViolation,
    ServerProtocolError,
    TlsError,
    parse_server_error,
)
from tickertape.nats.credentials import Access
from tickertape.nats.headers import Headers
from tickertape.nats.protocol_parser import Info, Message, ParserError, Ping, ProtocolParser, ServerError
from tickertape.process.tasks import cancel_and_wait

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the end of a connection; one whose TLS handshake failed would never say that it ended."""


class SafeClient(Client):
    """A client that is not connected yet.

    Args:
        access: credentials and certificates.
        url: one address or several with commas.

    Attributes:
        access: as given.
        url: as given.
        faults: connections that ended because what came over them could not be read.
    """

    def __init__(self, access: Access, url: str) -> None:
        super().__init__()
        self.access = access
        self.url = url
        self.faults = 0
        self._ps = _Parser(self)  # type: ignore[assignment]
        self._only_tls = access.requires_tls or any(
            part.strip().startswith("tls:") for part in url.split(",")
        )
        # A server that does not ask for credentials may still treat those better who show some.
        self._auth_configured = access.has_credentials
        self._certificate_checked = False  # whether the server of this connection looks at our certificate
        if "ws://" not in url and "wss://" not in url:
            self._transport = _Transport()

    def connect_options(self) -> dict[str, Any]:
        """What ``connect`` needs to know of the access."""
        access = self.access
        options: dict[str, Any] = {"inbox_prefix": access.inbox_prefix}
        if access.creds is not None or access.nkey_file is not None:
            options["signature_cb"] = self._sign
            if access.creds is not None:
                options["user_jwt_cb"] = lambda: bytearray(access.read_jwt().encode())
        elif access.user is not None:
            options |= {"user": access.user, "password": access.read_secret}
        elif access.has_credentials:
            options["token"] = access.read_secret
        return options

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Made anew for each connection, so that renewed certificates count."""
        return self.access.ssl_context()

    def _sign(self, nonce: str) -> bytes:
        keys = self.access.read_key_pair()
        try:
            if self.access.nkey_file is not None:
                # nats-py reads it right after it has let us sign.
                self._public_nkey = bytes(keys.public_key).decode()
            return base64.b64encode(keys.sign(nonce.encode()))
        finally:
            keys.wipe()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py asks its reconnection to end once, which that can miss: it would connect what is closed.
        task = self._reconnection_task
        if task is not None and task is not asyncio.current_task():
            await cancel_and_wait(task)
        await super()._close(status, do_cbs)

    async def _read_loop(self) -> None:
        try:
            while self._transport is not None and not (self.is_closed or self.is_reconnecting):
                if self._transport.at_eof():
                    raise UnexpectedEOF
                await self._ps.parse(await self._transport.read(DEFAULT_BUFFER_SIZE))
        except asyncio.CancelledError:
            pass  # by nats-py itself, which waits for no end
        except (UnexpectedEOF, OSError) as error:
            await self._end_connection(error)
        except Exception as error:
            try:
                await self._end_connection(
                    ServerProtocolError(f"what came cannot be read: {str(error) or type(error).__name__}")
                )
            finally:
                # Counted when it is connected no more: a reader that sees it waits for the next connection.
                self.faults += 1

    async def _end_connection(self, error: Exception) -> None:
        """Begin to reconnect; that must not depend on the callback to which the error is told."""
        try:
            await self._error_cb(error)
        finally:
            await self._process_op_err(error)

    async def _process_headers(self, headers: bytes | None) -> Headers | None:
        return None if headers is None else Headers(headers)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            self,
            subject.decode(errors="surrogateescape"),
            reply.decode(errors="surrogateescape"),
            data,
            headers,
            _sid=sid,
        )

    async def _process_connect_init(self) -> None:
        self._certificate_checked = False
        try:
            await super()._process_connect_init()
        except OSError as error:
            # Among them what TLS says, of which a certificate that is not trusted is a ValueError, too.
            if not self._certificate_checked or not isinstance(error, ConnectionError):
                raise
            # With TLS 1.3 a server says so after the handshake, and the reset that follows hides its words.
            raise TlsError(
                "it ends the connection after the handshake", "check that it trusts --nats-cert"
            ) from error
        except NatsError as error:
            if type(error) is not NatsError:
                raise
            raise parse_server_error(str(error).removeprefix("nats: ")) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # nats-py's task that reconnects would end with it, and never try again.
            raise ServerProtocolError(f"its greeting cannot be read: {error}") from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        assert self._current_server is not None
        if initial_connection and self._current_server.uri.scheme in ("nats", "tls"):
            if self._only_tls:
                if not info.get("tls_required") and not info.get("tls_available"):
                    raise TlsError("it offers no TLS", "enable it there; nothing is sent in the clear")
                info["tls_required"] = True  # nats-py looks at this alone
            if info.get("tls_required") and info.get("tls_verify"):
                if self.access.cert is None:
                    raise TlsError(
                        "it requires a certificate of this program", "give --nats-cert and --nats-key"
                    )
                self._certificate_checked = True
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        error = parse_server_error(err_msg)
        if not isinstance(error, StaleConnectionError):
            self._err = error
            await self._error_cb(error)
        if not isinstance(error, PermissionsViolation):
            await self._process_op_err(error)

    def pause_reading(self) -> None:
        """Leave what comes in the socket until ``resume_reading``."""
        if (transport := self._socket_transport()) is not None:
            transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again after ``pause_reading``."""
        if (transport := self._socket_transport()) is not None:
            transport.resume_reading()

    def _socket_transport(self) -> asyncio.Transport | None:
        # nats-py has no way to it; without it events are read one by one, and all else works.
        writer = getattr(self._transport, "_io_writer", None)
        transport: asyncio.Transport | None = getattr(writer, "transport", None)
        return None if transport is None or transport.is_closing() else transport


def server_info(client: Client) -> Mapping[str, Any]:
    """Return what the server said of itself when the client connected."""
    return client._server_info


def inbox_prefix(client: Client) -> str:
    """Return the first tokens of the subjects on which a client gets its answers."""
    return client._inbox_prefix.decode()


def protocol_errors(client: Client) -> int:
    """Count the connections that ended because what came could not be read; 0 for another's client."""
    return client.faults if isinstance(client, SafeClient) else 0


class _Parser:
    """Our parser in the place of nats-py's: hands on what it finds."""

    def __init__(self, client: SafeClient) -> None:
        self._client = client
        self._protocol = ProtocolParser()

    def reset(self) -> None:
        """Forget what came so far, at the begin of a connection."""
        self._protocol = ProtocolParser()

    async def parse(self, data: bytes) -> None:
        client, protocol = self._client, self._protocol
        for operation in protocol.receive_data(data):
            if type(operation) is Message:
                sid, subject, reply, headers, body = operation
                await client._process_msg(sid, subject, reply, body, headers)  # type: ignore[arg-type]
            elif type(operation) is Ping:
                await client._process_ping()
            elif type(operation) is Info:
                await client._process_info(_server_info(operation.text))
            elif type(operation) is ServerError:
                await client._process_err(operation.text.decode(errors="replace"))
            else:
                await client._process_pong()
            if protocol is not self._protocol:
                return  # the connection has ended meanwhile


def _server_info(text: bytes) -> dict[str, Any]:
    info = orjson.loads(text)
    if not isinstance(info, dict):
        raise ParserError("INFO is not a JSON object")
    return info


class _Transport(TcpTransport):
    """nats-py's connection over TCP, which ends in time, and hears why the server ends it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held = b""

    def __bool__(self) -> bool:
        return True  # nats-py would make one of its own in place of one without a connection

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self._held = b""
        await super().connect(uri, buffer_size, connect_timeout)

    def write(self, payload: bytes) -> None:
        # With the PING that follows in a packet of its own, a server that refuses the CONNECT answers it with
        # a reset, which can make the system forget the error that the server has sent.
        if payload.startswith(b"CONNECT "):
            self._held = payload
            return
        held, self._held = self._held, b""
        self.writelines([held + payload])

    def writelines(self, payload: Sequence[bytes]) -> None:
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            # What uvloop says of a closed socket: nats-py's flusher would end on it without a word, and each
            # later publication would raise it.
            raise ConnectionResetError("the connection was lost") from error

    async def readline(self) -> bytes:
        try:
            line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConnectionResetError(f"its first words are no NATS protocol: {error}") from None
        if not line:
            # nats-py would take the end of the connection for the server's consent.
            raise ConnectionResetError("it ended the connection without a word")
        return line

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await super().wait_closed()  # type: ignore[no-untyped-call]


__all__ = ["SafeClient", "inbox_prefix", "protocol_errors", "server_info"]
