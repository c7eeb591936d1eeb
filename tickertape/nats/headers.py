"""The header block of a NATS message (ADR-4), which a server stores and forwards whatever bytes it holds.

Invariants:

1. Reading never fails: of a block that breaks the format, what can be read is read, and ``well_formed`` is
   False. Who takes headers from a producer looks at that; who reads what a server has added does not.
2. ``Status`` and ``Description`` come from the block's first line alone, where only a server's own messages
   have them; a producer's header of that name forges nothing.
3. Names and values hold no lone surrogates.
"""

import re
from typing import Final

_VERSION: Final = b"NATS/1.0"
_CONTROL: Final = re.compile(r"[\x00\r\n]")
_STATUS: Final = re.compile(rb" (\d{3})(?: ([^\r\n]*))?")
_RESERVED: Final = frozenset({"Status", "Description"})


class Headers(dict[str, str]):
    """Headers by name; of one that stands twice the last counts, since that is the server's.

    Args:
        raw: the block as it came.

    Attributes:
        well_formed: whether all of the block keeps the format.
    """

    __slots__ = ("raw", "well_formed")

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw
        self.well_formed = True
        first, _, rest = raw.partition(b"\r\n")
        if first != _VERSION:
            self._first_line(first)
        if rest.endswith(b"\r\n\r\n"):
            rest = rest[:-4]
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
            if not value.isprintable() and _CONTROL.search(value):
                self.well_formed = False
            if name not in _RESERVED:
                self[name] = value

    def _first_line(self, first: bytes) -> None:
        status = _STATUS.fullmatch(first, len(_VERSION)) if first.startswith(_VERSION) else None
        if status is None:
            self.well_formed = False
            return
        self["Status"] = status[1].decode()
        if status[2]:
            self["Description"] = status[2].decode(errors="replace").strip()


def server_header(raw: bytes | None, name: str) -> str:
    """Value of a header that a server has added to a stored message; empty when there is none.

    A server cuts the last two bytes of a block and writes behind them, so what it adds may not begin a line.

    Args:
        raw: the block as it came.
        name: of a header whose value cannot hold the name, a colon and a space.
    """
    _, found, rest = (raw or b"").rpartition(f"{name}: ".encode())
    return rest.partition(b"\r\n")[0].decode(errors="replace") if found else ""


__all__ = ["Headers", "server_header"]
