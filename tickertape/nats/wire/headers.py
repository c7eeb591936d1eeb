"""Header block of a NATS message (ADR-4); a server stores and forwards it with any bytes.

Invariants:

1. Parsing never fails: the valid part of a malformed block is parsed, and ``well_formed`` is False. Code that
   trusts a producer's headers must check ``well_formed``; code that reads headers of the server need not.
2. ``Status`` and ``Description`` are taken only from the first line, where only the server's own messages
   have them, so a producer cannot forge them with a header of the same name.
3. Names and values contain no lone surrogates.
"""

import re
from typing import Final

_VERSION: Final = b"NATS/1.0"
_CONTROL: Final = re.compile(r"[\x00\r\n]")
_STATUS: Final = re.compile(rb" (\d{3})(?: ([^\r\n]*))?")
_RESERVED: Final = frozenset({"Status", "Description"})


class Headers(dict[str, str]):
    """Headers by name; the last of several with the same name counts, because it is the server's.

    Args:
        raw: the block as received.

    Attributes:
        raw: the argument.
        well_formed: whether the complete block is valid.
    """

    __slots__ = ("raw", "well_formed")

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw
        self.well_formed = True
        first, _, rest = raw.partition(b"\r\n")
        if first != _VERSION:
            self._parse_first_line(first)
        if rest.endswith(b"\r\n\r\n"):
            rest = rest[:-4]
        # A status line without headers, such as 503 for "no responders".
        elif rest == b"\r\n":
            return
        else:
            self.well_formed = False
        try:
            text = rest.decode()
        except UnicodeDecodeError:
            self.well_formed = False
            text = rest.decode(errors="replace")
        for line in text.split("\r\n"):
            name, colon, value = line.partition(":")
            if not (colon and name and name.isascii() and name.isprintable() and " " not in name):
                self.well_formed = False
                continue
            value = value.strip(" \t")
            # ``isprintable`` is fast, and true for nearly every value.
            if not value.isprintable() and _CONTROL.search(value):
                self.well_formed = False
            if name not in _RESERVED:
                self[name] = value

    def _parse_first_line(self, first: bytes) -> None:
        status = _STATUS.fullmatch(first, len(_VERSION)) if first.startswith(_VERSION) else None
        if status is None:
            self.well_formed = False
            return
        self["Status"] = status[1].decode()
        if status[2]:
            self["Description"] = status[2].decode(errors="replace").strip()


def server_header(raw: bytes | None, name: str) -> str:
    """Return the value of a header that the server added to a stored message; empty if there is none.

    The server cuts off the last two bytes of a block before it appends, so its headers may not start a line.

    Args:
        raw: the block as received.
        name: name of a header whose value cannot contain the name followed by a colon and a space.
    """
    _, found, rest = (raw or b"").rpartition(f"{name}: ".encode())
    return rest.partition(b"\r\n")[0].decode(errors="replace") if found else ""


__all__ = ["Headers", "server_header"]
