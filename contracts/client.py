"""nats-py's client, with what it lacks for us: TLS that is never left out, a connection never given up.

It steps into methods that nats-py calls on itself (2.16), since there is no other place for it:

* a server without TLS gets no credentials from a client that asked for TLS; nats-py would go on in the clear;
* the files of the access are read at each connection;
* an error for which the server ends the connection, such as credentials that have expired, leads to another
  try; nats-py would close the client for good, and whoever uses it would wait for ever.
"""

import base64
import ssl
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from contracts.access import Access

_PASSING: Final = ("permissions violation", "stale connection")
"""Errors that nats-py treats well itself: the connection stays, or is made anew."""


class NoTls(NatsError):
    """The server speaks no TLS, and this client speaks nothing else."""

    def __str__(self) -> str:
        return "offers no TLS, and nothing is sent to it in the clear"


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

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        assert self._current_server is not None
        if initial_connection and self._only_tls and self._current_server.uri.scheme in ("nats", "tls"):
            if not info.get("tls_required") and not info.get("tls_available"):
                raise NoTls
            info["tls_required"] = True  # nats-py looks at this alone
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        if any(text in err_msg for text in _PASSING):
            await super()._process_err(err_msg)
            return
        error = NatsError(f"nats: {err_msg}")
        self._err = error
        await self._error_cb(error)
        await self._process_op_err(error)


__all__ = ["NoTls", "SafeClient"]
