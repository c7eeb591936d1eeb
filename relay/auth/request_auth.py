"""Authentication of requests: the origin of the page, and the token and the certificate of the client.

The feed and ``GET /events`` share these checks; only the form of their responses differs.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import SUBPROTOCOL, ProtocolError
from tickertape.relay.auth.client_address import Networks, client_address, is_https
from tickertape.relay.auth.origins import Origins
from tickertape.relay.core.grants import EVERYTHING, Grant

BEARER_PREFIX: Final = "bearer."
"""Prefix of the subprotocol that carries a token, since browsers cannot set headers."""

_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9_.~+/=-]+) *", re.IGNORECASE | re.ASCII)

Headers = list[tuple[str, str]]
"""Header names in lower case, and values, in order."""


@dataclass(frozen=True, slots=True)
class SubprotocolOffer:
    """Subprotocols that a client offers.

    Attributes:
        supported: whether the relay's subprotocol is among them, so that a rejection can be sent over the
            WebSocket.
        token: token in the subprotocols, where browsers have to send it, or None.
    """

    supported: bool
    token: str | None


class RequestAuth:
    """Authentication and origin checks of requests.

    Args:
        verify: returns the grant of a token, or raises ProtocolError; None if no token is required.
        origins: origins of pages that may connect.
        trusted: proxies whose headers about the client address are trusted.
        certificates: returns the grant of a client certificate in DER, or raises ProtocolError; None if
            certificates are not requested.
        ready: returns whether tokens can be verified, for which the issuer's keys have to be fetched first.
    """

    def __init__(
        self,
        verify: Callable[[str], Grant] | None = None,
        origins: Origins | None = None,
        trusted: Networks | None = None,
        certificates: Callable[[bytes], Grant] | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.verify = verify
        self._certificates = certificates
        self.ready = ready
        self.origins = origins or Origins()
        self._trusted = trusted or Networks("")

    def __repr__(self) -> str:
        return f"RequestAuth(tokens={self.verify is not None}, {self.origins!r})"

    def is_proxy(self, peer: str) -> bool:
        """Return whether a peer is a trusted proxy, whose requests name their clients."""
        return peer in self._trusted

    def client_address(self, peer: str, headers: Headers) -> str:
        """Return the address of the client, which may be behind a trusted proxy."""
        return client_address(peer, headers, self._trusted)

    def check_origin(self, peer: str, headers: Headers, *, secure: bool) -> None:
        """Check that the page's origin is allowed, and that the host name is a name of this relay.

        Args:
            peer: address of the socket.
            headers: request headers.
            secure: whether the socket itself is encrypted.

        Raises:
            ProtocolError: the origin or host is not allowed (``forbidden``).
        """
        host = header_value(headers, "host") or ""
        if not self.origins.is_own_host(host):
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                f"{host[:80]!r} is not a name of this relay; use a loopback address, or --allowed-origins",
            )
        origins: list[str | None] = [value for name, value in headers if name == "origin"]
        https = is_https("https" if secure else "http", peer, headers, self._trusted)
        # A browser sends one origin. Of several, each has to be allowed, so that none hides another.
        for origin in origins or [None]:
            if not self.origins.allows(origin, host, https=https):
                raise ProtocolError(
                    ErrorCode.FORBIDDEN,
                    f"origin {(origin or '')[:80]!r} is not allowed; add it with --allowed-origins",
                )

    def grant(
        self, peer: str, headers: Headers, token: str | None = None, certificate: bytes | None = None
    ) -> Grant | None:
        """Return the grant of a request's token and client certificate.

        Args:
            peer: address of the socket.
            headers: request headers; ``Authorization: Bearer`` takes precedence.
            token: token from another source.
            certificate: certificate that the client has authenticated the socket with, in DER.

        Returns:
            The grant of the token or of the certificate, or the intersection if there are both; None if a
            token is required but missing.

        Raises:
            ProtocolError: the token or the certificate is invalid.
        """
        if self.verify is None and self._certificates is None:
            return EVERYTHING
        certified = self._certificate_grant(peer, certificate)
        if self.verify is None:
            return certified
        token = self.bearer_token(headers) or token
        if token is None:
            return certified
        grant = self.verify(token)
        return grant.restrict(certified.certificate) if certified and certified.certificate else grant

    def _certificate_grant(self, peer: str, certificate: bytes | None) -> Grant | None:
        # The certificate of a trusted proxy authenticates the proxy, not the many clients behind it.
        if self._certificates is not None and certificate is not None and peer not in self._trusted:
            return self._certificates(certificate)
        if self.verify is None:
            raise ProtocolError(
                ErrorCode.UNAUTHORIZED,
                "client certificate required; connect to the relay itself, since a proxy cannot pass it on",
            )
        return None

    def bearer_token(self, headers: Headers) -> str | None:
        """Return the token in ``Authorization``; None without one.

        Raises:
            ProtocolError: there are several tokens, or one that is malformed.
        """
        # Other schemes are ignored: they may be meant for a proxy in front of the relay.
        credentials = [
            value for name, value in headers if name == "authorization" and _scheme(value) == "bearer"
        ]
        if len(credentials) > 1:
            raise ProtocolError(
                ErrorCode.UNAUTHORIZED, "several 'Authorization: Bearer' headers; send only one"
            )
        if not credentials:
            return None
        match = _BEARER.fullmatch(credentials[0])
        if match is None:
            raise ProtocolError(
                ErrorCode.UNAUTHORIZED, "'Authorization: Bearer' without a valid token; send a JWT"
            )
        return match[1]


def parse_subprotocols(values: Iterable[str]) -> SubprotocolOffer:
    """Parse ``Sec-WebSocket-Protocol``.

    Raises:
        ProtocolError: the client offers several tokens.
    """
    names = [name.strip() for value in values for name in value.split(",")]
    tokens = [name[len(BEARER_PREFIX) :] for name in names if name.startswith(BEARER_PREFIX)]
    if len(tokens) > 1:
        raise ProtocolError(ErrorCode.UNAUTHORIZED, "several tokens in the subprotocols; offer only one")
    return SubprotocolOffer(SUBPROTOCOL in names, tokens[0] if tokens else None)


def header_value(headers: Headers, name: str) -> str | None:
    """Return the first value of a header, or None if it is absent."""
    return next((value for header, value in headers if header == name), None)


def _scheme(value: str) -> str:
    return value.lstrip().partition(" ")[0].lower()
