"""URLs in settings: validation, redaction of secrets, and formatting of host and port."""

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

_NEXT_URL: Final = re.compile(r",(?=\s*[a-z]+://)")
_NOT_A_PORT: Final = re.compile(r":(?!//)(?!\d+(?:[,/]|$)).*")
"""Text in the position of a port that is not one: a user's password in a URL whose host is missing."""


def parse_url(text: str, schemes: Collection[str], example: str, *, user: bool = False) -> SplitResult:
    """Parse a URL and validate its scheme, host, port and characters.

    Args:
        text: the URL.
        schemes: accepted schemes.
        example: a valid URL for the error message.
        user: whether the URL may contain a user and a password.

    Raises:
        ValueError: the URL is not valid; the error does not contain a password.
    """
    # A user name may have any character, because it is not sent as part of the URL.
    sent = text.rpartition("@")[2]
    try:
        url = urlsplit(text)
        valid = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False  # the text of this error is dropped: it may contain a part of the password
    odd = next((character for character in sent if not "!" <= character <= "~"), None)
    if not valid or odd is not None:
        redacted = _NOT_A_PORT.sub(":***", redact_url(text))
        without = f", without the character {odd!r}" if valid else ""
        raise ValueError(f"{redacted!r} is not a valid address; write it as {example}{without}")
    if "@" in url.netloc and not user:
        raise ValueError(
            f"address {redact_url(text)} holds a user, which logs and events would show; remove the user"
        )
    return url


def redact_url(text: str) -> str:
    """Redact user, password and query of a URL, or of several URLs separated by commas."""
    return ",".join(_redact_one(part.strip()) for part in _NEXT_URL.split(text))


def host_port(host: str, port: int) -> str:
    """Format ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _redact_one(text: str) -> str:
    # Split off the user before the query, because a password may contain a question mark.
    head, at, tail = text.rpartition("@")
    tail = tail.partition("?")[0].partition("#")[0]
    if not at:
        return tail
    scheme, separator, _ = head.partition("://")
    return f"{scheme}{separator}***@{tail}" if separator else f"***@{tail}"
