"""Addresses as settings have them: checked, shown without their secrets, and written with their port."""

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

_NEXT_ADDRESS: Final = re.compile(r",(?=\s*[a-z]+://)")
_NO_PORT: Final = re.compile(r":(?!//)(?!\d+(?:[,/]|$)).*")
"""What stands in the place of a port and is none: a user's password, when the rest is missing."""


def checked(text: str, schemes: Collection[str], example: str, *, user: bool = False) -> SplitResult:
    """Read an address, and check its scheme, host, port and characters.

    Args:
        text: the address.
        schemes: those that it may have.
        example: an address that is right, for the error.
        user: whether it may hold a user and a password.

    Raises:
        ValueError: it cannot be used; the error does not quote a password.
    """
    # A user's name may have any characters; they are not sent as part of the address.
    sent = text.rpartition("@")[2]
    try:
        url = urlsplit(text)
        good = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False  # not with the error's own text, which may hold half of a password
    if not good or not sent.isascii() or any(character <= " " for character in sent):
        hidden = _NO_PORT.sub(":***", shown(text))
        raise ValueError(f"{hidden!r} is not a valid address; write it as {example}")
    if "@" in url.netloc and not user:
        raise ValueError(f"address {shown(text)} holds a user, which logs and events would show; take it out")
    return url


def shown(text: str) -> str:
    """Hide user, password and query of an address, or of several with commas, for people and logs."""
    return ",".join(_without_secrets(part.strip()) for part in _NEXT_ADDRESS.split(text))


def host_port(host: str, port: int) -> str:
    """Write ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_secrets(text: str) -> str:
    # The user first: a password may have a question mark in it, and then stands in the query.
    head, at, tail = text.rpartition("@")
    tail = tail.partition("?")[0].partition("#")[0]
    if not at:
        return tail
    scheme, mark, _ = head.partition("://")
    return f"{scheme}{mark}***@{tail}" if mark else f"***@{tail}"
