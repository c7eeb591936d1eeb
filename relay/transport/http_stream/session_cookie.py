"""Cookie of a session: the bearer token itself, for ``EventSource``, which cannot set headers.

It is valid at every relay, since nothing is stored here. Only ``GET /sse`` reads it: it opens nothing else,
and changes nothing.
"""

from typing import Final

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.request_auth import Headers, header_value

COOKIE: Final = "tickertape_session"
"""Name of the cookie."""

MAX_COOKIE_BYTES: Final = 4096
"""Maximum bytes of a cookie's name and value; browsers ignore longer ones (RFC 6265bis, 5.6)."""

_OWN_SITE: Final = (None, "same-origin", "none")
"""Values of ``Sec-Fetch-Site`` for requests of a page of the relay, or of the user."""


def set_cookie(token: str, root: str, max_age: int | None) -> str:
    """Return the ``Set-Cookie`` that stores a token.

    Args:
        token: bearer token.
        root: path that the feed is mounted at; empty for the root.
        max_age: seconds until the token expires; None if it does not.

    Raises:
        ProtocolError: the token is too long for a cookie.
    """
    size = len(COOKIE) + len(token)
    if size > MAX_COOKIE_BYTES:
        raise ProtocolError(
            ErrorCode.BAD_QUERY,
            f"a cookie of {size} bytes is longer than browsers store ({MAX_COOKIE_BYTES}); use a token with "
            "a shorter grant, or fetch() with 'Authorization: Bearer'",
        )
    age = "" if max_age is None else f"; Max-Age={max_age}"
    return f"{COOKIE}={token}{_attributes(root)}{age}"


def clear_cookie(root: str) -> str:
    """Return the ``Set-Cookie`` that removes the token; ``root`` as in ``set_cookie``."""
    return f"{COOKIE}={_attributes(root)}; Max-Age=0"


def read_cookie(headers: Headers) -> str | None:
    """Return the token in the cookie of a request; None without one.

    Raises:
        ProtocolError: there are several tokens, or a page of another origin has made the browser send it.
    """
    pairs = [
        pair.strip().partition("=")
        for name, value in headers
        if name == "cookie"
        for pair in value.split(";")
    ]
    tokens = [value for name, _, value in pairs if name == COOKIE]
    if not tokens:
        return None
    if len(tokens) > 1:
        # One of them may be of a page on another subdomain, for its own token.
        raise ProtocolError(ErrorCode.UNAUTHORIZED, f"several cookies {COOKIE}; DELETE /session, then log in")
    # Images and scripts of a page have no ``Origin``. Those of other sites have no cookie either (SameSite);
    # but pages of other subdomains are of the same site.
    site = header_value(headers, "sec-fetch-site")
    if header_value(headers, "origin") is None and site not in _OWN_SITE:
        raise ProtocolError(
            ErrorCode.FORBIDDEN, f"the cookie {COOKIE} is for pages of this origin; use 'Authorization'"
        )
    return tokens[0] or None


def _attributes(root: str) -> str:
    return f"; Path={root}/sse; HttpOnly; Secure; SameSite=Strict"
