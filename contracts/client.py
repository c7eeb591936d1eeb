"""nats-py's client, with what it lacks for us: TLS that is never left out, a connection never given up.

It steps into methods that nats-py calls on itself (2.16), since there is no other place for it:

* a server without TLS gets no credentials from a client that asked for TLS; nats-py would go on in the clear;
* the files of the access are read at each connection;
* what a server says when it turns a client away is heard;
* an error for which the server ends the connection, such as credentials that have expired, leads to another
  try; nats-py would close the client for good, and whoever uses it would wait for ever.
"""

import asyncio
import base64
import contextlib
import ssl
from typing import Any, Final
from urllib.parse import ParseResult

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

from contracts.access import Access

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the end of a connection; one whose TLS handshake failed would never say that it ended."""

_PASSING: Final = ("permissions violation", "stale connection")
"""Errors that nats-py treats well itself: the connection stays, or is made anew."""


class TlsRefused(NatsError):
    """No TLS connection that both sides can agree on; the text says why."""


class SafeClient(Client):
    """A client that is not connected yet.

    Args:
        access: credentials and certificates.
        url: one address or several with commas.
    """

    def __init__(self, access: Access, url: str) -> None:
        super().__init__()
        self._access = access
        self._only_tls = access.tls or any(part.strip().startswith("tls:") for part in url.split(","))
        # A server that does not ask for credentials may still treat those better who show some.
        self._auth_configured = access.identifies
        self._certificate_checked = False  # whether the server of this connection looks at our certificate
        if "ws://" not in url and "wss://" not in url:
            self._transport = _Transport()

    def access_options(self) -> dict[str, Any]:
        """What ``connect`` needs to know of the access."""
        access = self._access
        options: dict[str, Any] = {"inbox_prefix": access.inbox_prefix}
        if access.creds is not None or access.nkey_file is not None:
            options["signature_cb"] = self._sign
            if access.creds is not None:
                options["user_jwt_cb"] = lambda: bytearray(access.jwt().encode())
        elif access.user is not None:
            options |= {"user": access.user, "password": access.secret}
        elif access.identifies:
            options["token"] = access.secret
        return options

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Made anew for each connection, so that renewed certificates count."""
        return self._access.context()

    def _sign(self, nonce: str) -> bytes:
        keys = self._access.key_pair()
        try:
            if self._access.nkey_file is not None:
                # nats-py reads it right after it has let us sign.
                self._public_nkey = bytes(keys.public_key).decode()
            return base64.b64encode(keys.sign(nonce.encode()))
        finally:
            keys.wipe()

    async def _process_connect_init(self) -> None:
        self._certificate_checked = False
        try:
            await super()._process_connect_init()
        except ConnectionError as error:
            if not self._certificate_checked:
                raise
            # With TLS 1.3 a server says so after the handshake, and the reset that follows hides its words.
            raise TlsRefused(
                "the connection ends after the handshake; does it trust our certificate?"
            ) from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        assert self._current_server is not None
        if initial_connection and self._current_server.uri.scheme in ("nats", "tls"):
            if self._only_tls:
                if not info.get("tls_required") and not info.get("tls_available"):
                    raise TlsRefused("it offers none, and nothing is sent to it in the clear")
                info["tls_required"] = True  # nats-py looks at this alone
            if info.get("tls_required") and info.get("tls_verify"):
                if self._access.cert is None:
                    raise TlsRefused(
                        "it wants a certificate of this program; give --nats-cert and --nats-key"
                    )
                self._certificate_checked = True
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        if any(text in err_msg for text in _PASSING):
            await super()._process_err(err_msg)
            return
        error = NatsError(f"nats: {err_msg}")
        self._err = error
        await self._error_cb(error)
        await self._process_op_err(error)


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
        super().write(held + payload if held else payload)  # type: ignore[no-untyped-call]

    async def readline(self) -> bytes:
        line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        if not line:
            # nats-py would take the end of the connection for the server's consent.
            raise ConnectionResetError("it ended the connection without a word")
        return line

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super().wait_closed(), CLOSE_TIMEOUT)  # type: ignore[no-untyped-call]


__all__ = ["SafeClient", "TlsRefused"]
