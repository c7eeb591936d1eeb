"""Subclass of nats-py's client that enforces TLS where it is required, and always reconnects.

No message can stop the client: its parser accepts every subject, reply subject and header block that a server
forwards. Subjects that are not UTF-8 contain their bytes as lone surrogates (``surrogateescape``); code
that receives subjects from untrusted producers must validate them first, as ``decode`` does.

The class overrides private methods of nats-py (2.16), because it offers no other hook, to ensure that:

* credentials are never sent in the clear: if TLS is required and the server does not offer it, the connection
  fails (nats-py would continue without TLS);
* credentials and certificate files are read at each connection;
* the reason for which a server rejects a client is reported;
* errors after which the server closes the connection, such as expired credentials, lead to a reconnect
  (nats-py would close the client permanently, and its user would wait forever);
* an exception in the read loop counts as a lost connection (nats-py would end the loop and stay "connected").
"""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any

import orjson
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError, UnexpectedEOF

from tickertape.nats.connect_errors import (
    PermissionsViolation,
    ServerProtocolError,
    TlsError,
    parse_server_error,
)
from tickertape.nats.credentials import Access
from tickertape.nats.wire.headers import Headers
from tickertape.nats.wire.protocol_parser import Info, Message, ParserError, Ping, ProtocolParser, ServerError
from tickertape.nats.wire.transport import WireTransport
from tickertape.process.tasks import cancel_and_wait


class SafeClient(Client):
    """NATS client, initially not connected.

    Args:
        access: credentials and certificates.
        url: one address, or several separated by commas.

    Attributes:
        access: the argument.
        url: the argument.
        protocol_error_count: number of connections that ended because the server sent invalid data.
    """

    def __init__(self, access: Access, url: str) -> None:
        super().__init__()
        self.access = access
        self.url = url
        self.protocol_error_count = 0
        # Replaces the parser of nats-py, which calls only reset() on it.
        self._ps = _Parser(self)  # type: ignore[assignment]
        # One ``tls://`` address makes TLS mandatory for all addresses: a failover to another one must not
        # send the credentials in the clear.
        self._tls_required = access.requires_tls or any(
            part.strip().startswith("tls:") for part in url.split(",")
        )
        # A server that does not require credentials may still grant more permissions to a known user.
        self._auth_configured = access.has_credentials
        self._certificate_checked = False  # whether this connection's server verifies client certificates
        # For WebSocket addresses nats-py creates its own transport.
        if "ws://" not in url and "wss://" not in url:
            self._transport = WireTransport()

    def connect_options(self) -> dict[str, Any]:
        """Return the arguments of ``connect`` that follow from the credentials."""
        access = self.access
        options: dict[str, Any] = {"inbox_prefix": access.inbox_prefix}
        if access.creds is not None or access.nkey_file is not None:
            options["signature_cb"] = self._sign
            if access.creds is not None:
                options["user_jwt_cb"] = lambda: bytearray(access.read_jwt().encode())
        elif access.user is not None:
            # nats-py calls a function at each connection, so a rotated secret takes effect at the next one.
            options |= {"user": access.user, "password": access.read_secret}
        elif access.has_credentials:
            options["token"] = access.read_secret
        return options

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """TLS context, created for each connection so that renewed certificates take effect."""
        return self.access.ssl_context()

    def _sign(self, nonce: str) -> bytes:
        keys = self.access.read_key_pair()
        try:
            if self.access.nkey_file is not None:
                # nats-py reads this attribute right after it calls the signature callback.
                self._public_nkey = bytes(keys.public_key).decode()
            return base64.b64encode(keys.sign(nonce.encode()))
        finally:
            keys.wipe()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py cancels its reconnection task only once; a task that misses it would reconnect a closed
        # client.
        task = self._reconnection_task
        if task is not None and task is not asyncio.current_task():
            await cancel_and_wait(task)
        if isinstance(self._transport, WireTransport):
            self._transport.closing = True
        await super()._close(status, do_cbs)

    async def _read_loop(self) -> None:
        try:
            while self._transport is not None and not (self.is_closed or self.is_reconnecting):
                if self._transport.at_eof():
                    raise UnexpectedEOF
                await self._ps.parse(await self._transport.read(DEFAULT_BUFFER_SIZE))
        except asyncio.CancelledError:
            pass  # by nats-py, which does not wait for the task
        # A lost network is not counted: from the count, readers infer that a message ended the connection.
        except (UnexpectedEOF, OSError) as error:
            await self._end_connection(error)
        except Exception as error:
            try:
                await self._end_connection(
                    ServerProtocolError(f"invalid data from the server: {str(error) or type(error).__name__}")
                )
            finally:
                # Counted after the disconnect: a reader that sees the new count waits for a reconnect.
                self.protocol_error_count += 1

    async def _end_connection(self, error: Exception) -> None:
        """Start to reconnect, even if the error callback raises."""
        try:
            await self._error_cb(error)
        finally:
            await self._process_op_err(error)

    # The originals of these two decode strictly within the read loop, which one illegal byte would end.
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
            # Comes before ValueError, because the error for an untrusted certificate is of both types.
            if not self._certificate_checked or not isinstance(error, ConnectionError):
                raise
            # With TLS 1.3 the server rejects a client certificate after the handshake, and the reset that
            # follows hides its alert.
            raise TlsError(
                "the server closed the connection after the handshake", "check that it trusts --nats-cert"
            ) from error
        except NatsError as error:
            # nats-py raises the base class for the text of an ``-ERR``; the
            # subclasses are classified already.
            if type(error) is not NatsError:
                raise
            raise parse_server_error(str(error).removeprefix("nats: ")) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # An exception of another type would end the reconnection task of nats-py for good.
            raise ServerProtocolError(f"invalid INFO from the server: {error}") from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        assert self._current_server is not None
        # A WebSocket address decides about TLS by its own scheme, before INFO arrives.
        if initial_connection and self._current_server.uri.scheme in ("nats", "tls"):
            if self._tls_required:
                if not info.get("tls_required") and not info.get("tls_available"):
                    raise TlsError(
                        "the server does not offer TLS",
                        "enable TLS on the server; nothing is sent in the clear",
                    )
                info["tls_required"] = True  # the only field that nats-py checks
            if info.get("tls_required") and info.get("tls_verify"):
                if self.access.cert is None:
                    raise TlsError(
                        "the server requires a client certificate", "set --nats-cert and --nats-key"
                    )
                self._certificate_checked = True
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        error = parse_server_error(err_msg)
        # A stale connection is an ordinary loss of the connection, which the disconnect callback reports.
        if not isinstance(error, StaleConnectionError):
            self._err = error
            await self._error_cb(error)
        # The server closes the connection after nearly all other errors, and
        # reconnecting is harmless after the rest.
        if not isinstance(error, PermissionsViolation):
            await self._process_op_err(error)

    def pause_reading(self) -> None:
        """Stop reading from the socket until ``resume_reading``."""
        if (transport := self._socket_transport()) is not None:
            transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading after ``pause_reading``."""
        if (transport := self._socket_transport()) is not None:
            transport.resume_reading()

    def _socket_transport(self) -> asyncio.Transport | None:
        # nats-py does not expose the transport. If it is not found, reads are not paused, which only costs
        # speed.
        writer = getattr(self._transport, "_io_writer", None)
        transport: asyncio.Transport | None = getattr(writer, "transport", None)
        return None if transport is None or transport.is_closing() else transport


def server_info(client: Client) -> Mapping[str, Any]:
    """Return the INFO that the server sent when the client connected."""
    return client._server_info


def inbox_prefix(client: Client) -> str:
    """Return the prefix of the reply subjects of a client."""
    return client._inbox_prefix.decode()


def protocol_errors(client: Client) -> int:
    """Return how many connections ended because of invalid data; 0 for a client of another class."""
    return client.protocol_error_count if isinstance(client, SafeClient) else 0


class _Parser:
    """Replacement for the parser of nats-py that passes operations to the client."""

    def __init__(self, client: SafeClient) -> None:
        self._client = client
        self._protocol = ProtocolParser()

    def reset(self) -> None:
        """Discard all state at the start of a connection."""
        self._protocol = ProtocolParser()

    async def parse(self, data: bytes) -> None:
        client, protocol = self._client, self._protocol
        for operation in protocol.receive_data(data):
            # Messages come first, because nearly all operations are messages.
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
                return  # the connection ended in the meantime


def _server_info(text: bytes) -> dict[str, Any]:
    info = orjson.loads(text)
    if not isinstance(info, dict):
        raise ParserError("INFO is not a JSON object")
    return info


__all__ = ["SafeClient", "inbox_prefix", "protocol_errors", "server_info"]
