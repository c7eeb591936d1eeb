"""Host names by which a server may be addressed.

A page of any site can point its own domain at any address (DNS rebinding). Its requests are then same-origin
for the browser, but name the page's domain in ``Host``.
"""

import re
from ipaddress import ip_address
from typing import Final

HOST_PATTERN: Final = r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?"
"""Regular expression of a host with an optional port."""

_HOST: Final = re.compile(HOST_PATTERN, re.IGNORECASE | re.ASCII)
_NAME: Final = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE | re.ASCII)


def split_host(text: str) -> tuple[str, int | None] | None:
    """Split a ``Host`` header into name and port; return None if it is malformed."""
    match = _HOST.fullmatch(text.strip())
    if match is None:
        return None
    return match[1].lower().strip("[]"), None if match[2] is None else int(match[2])


def rebindable_name(host: str) -> str | None:
    """Return the name in a ``Host`` that its owner could point at any server; None if there is none."""
    parts = split_host(host)
    if parts is None:
        # Browsers may accept names that ``split_host`` rejects, such as a$b.example; none sends an empty one.
        return host.strip() or None
    # A trailing dot makes a name absolute, but it remains the same name.
    name = parts[0].rstrip(".")
    if "." not in name or name.endswith(".localhost"):
        return None  # a single-label name cannot be registered by an attacker
    try:
        ip_address(name)
    except ValueError:
        return name
    return None  # an address is not resolved, so it cannot be rebound


class HostNames:
    """Names by which a server may be addressed, in addition to those that cannot be rebound.

    Args:
        text: comma-separated names; ``*.example.com`` stands for all names below example.com.

    Raises:
        ValueError: an entry is not a host name.
    """

    def __init__(self, text: str = "") -> None:
        self._exact: set[str] = set()
        self._suffixes: list[str] = []
        for part in filter(None, (part.strip().lower() for part in text.split(","))):
            if not _NAME.fullmatch(part):
                raise ValueError(
                    f"{part[:80]!r} is not a host name; write it as relay.example.com or *.example.com"
                )
            if part.startswith("*."):
                self._suffixes.append(part[1:])
            else:
                self._exact.add(part)

    def __repr__(self) -> str:
        return f"HostNames({len(self._exact)} exact, {len(self._suffixes)} wildcards)"

    def allows(self, host: str) -> bool:
        """Return whether a request with this ``Host`` may be answered; empty if it has none."""
        name = rebindable_name(host)
        return name is None or name in self._exact or name.endswith(tuple(self._suffixes))
