"""What has to be right before a request gets anything: where its page is from, and whose token it brings.

The feed and ``GET /events`` ask the same questions here, and get the same answers; how they are told differs.
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
_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9_.~+/=-]+) *", re.IGNORECASE | re.ASCII)
Headers = list[tuple[str, str]]
"""Names in lower case, and values; in order."""


@dataclass(frozen=True, slots=True)
class SubprotocolOffer:
    """The subprotocols that a client offers.

    Attributes:
        browser: whether ours is among them; whoever offers it is told inside what is wrong.
        token: one that came along with them, as browsers have to send it.
    """

    supported: bool
    token: str | None


class RequestAuth:
    """Decides about requests.

    Args:
        verify: tells what a token grants, or raises ProtocolError; None where no tokens are asked for.
        origins: pages that may connect.
        trusted: proxies whose word counts about who a client is.
    """

    def __init__(
        self,
        verify: Callable[[str], Grant] | None = None,
        origins: Origins | None = None,
        trusted: Networks | None = None,
    ) -> None:
        self.verify = verify
        self.origins = origins or Origins()
        self._trusted = trusted or Networks("")

    def __repr__(self) -> str:
        return f"RequestAuth(tokens={self.verify is not None}, {self.origins!r})"

    def client_address(self, peer: str, headers: Headers) -> str:
        """Address of the client behind a peer."""
        return client_address(peer, headers, self._trusted)

    def check_origin(self, peer: str, headers: Headers, *, secure: bool) -> None:
        """Refuse a page of another site, and a name that leads here and is not ours.

        Args:
            peer: address of the socket.
            headers: of the request.
            secure: whether the socket itself is encrypted.

        Raises:
            ProtocolError: ``forbidden``.
        """
        host = header_value(headers, "host") or ""
        if not self.origins.is_own_host(host):
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                f"{host[:80]!r} is no name of this relay; use a loopback address, or --allowed-origins",
            )
        origins: list[str | None] = [value for name, value in headers if name == "origin"]
        https = is_https("https" if secure else "http", peer, headers, self._trusted)
        for origin in origins or [None]:
            if not self.origins.allows(origin, host, https=https):
                raise ProtocolError(
                    ErrorCode.FORBIDDEN,
                    f"pages of {(origin or '')[:80]!r} may not connect; --allowed-origins says which may",
                )

    def grant(self, headers: Headers, token: str | None = None) -> Grant | None:
        """What a request's token grants.

        Args:
            headers: of the request; ``Authorization: Bearer`` comes first.
            token: that came in another way.

        Returns:
            None when there is no token and one is needed.

        Raises:
            ProtocolError: the token is not good.
        """
        if self.verify is None:
            return EVERYTHING
        given = [value for name, value in headers if name == "authorization" and _scheme(value) == "bearer"]
        if len(given) > 1:
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "several 'Authorization: Bearer' headers; send one")
        if given:
            found = _BEARER.fullmatch(given[0])
            if found is None:
                raise ProtocolError(ErrorCode.UNAUTHORIZED, "'Authorization: Bearer' without a token")
            token = found[1]
        return None if token is None else self.verify(token)


def parse_subprotocols(values: Iterable[str]) -> SubprotocolOffer:
    """Read ``Sec-WebSocket-Protocol``.

    Raises:
        ProtocolError: several tokens in it.
    """
    names = [name.strip() for value in values for name in value.split(",")]
    tokens = [name[len(BEARER_PREFIX) :] for name in names if name.startswith(BEARER_PREFIX)]
    if len(tokens) > 1:
        raise ProtocolError(ErrorCode.UNAUTHORIZED, "several tokens among the subprotocols; offer one")
    return SubprotocolOffer(SUBPROTOCOL in names, tokens[0] if tokens else None)


def header_value(headers: Headers, name: str) -> str | None:
    """First value of a header; None when it is not there."""
    return next((value for given, value in headers if given == name), None)


def _scheme(value: str) -> str:
    return value.lstrip().partition(" ")[0].lower()
