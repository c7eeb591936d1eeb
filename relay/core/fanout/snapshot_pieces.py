"""Pieces of snapshots: one message each, encoded when a client can take it, and shared while it is in demand.

Invariants:

1. The encoded pieces in memory are bounded in bytes; the least recently used one is dropped first.
2. A piece is shared only by readings for which it would be built in the same way.
"""

from collections import OrderedDict
from collections.abc import Sized
from typing import Any, Final, NamedTuple

from tickertape.contracts.encode import EncodedSnapshot
from tickertape.relay.core.fanout.batch import MESSAGE_BYTES, Encoding
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.snapshot import Reading, Snapshot

MAX_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of encoded pieces in memory, beside those that sockets have not accepted yet."""

_OVERHEAD: Final = 512
"""Bytes that a cached piece takes in addition to its data."""


class Piece(NamedTuple):
    """Piece of a snapshot.

    Attributes:
        version: version of the snapshot that it was built from.
        end: index after its last state.
        done: whether it is the last piece of its snapshot.
        states: number of its states.
        data: encoded message; None if the piece is empty and not the last.
    """

    version: int
    end: int
    done: bool
    states: int
    data: Sized | None


class SnapshotPieces:
    """Builder of the pieces of all snapshots that clients read.

    Args:
        snapshot: newest states.
        max_bytes: maximum bytes of encoded pieces in memory.
    """

    def __init__(self, snapshot: Snapshot, max_bytes: int = MAX_BYTES) -> None:
        self.bytes = 0
        self._snapshot = snapshot
        self._max_bytes = max_bytes
        self._pieces: OrderedDict[tuple[Any, ...], Piece] = OrderedDict()

    def __repr__(self) -> str:
        return f"SnapshotPieces({len(self._pieces)} pieces, {self.bytes} bytes)"

    def take(self, reading: Reading, event_filter: Filter, encoding: Encoding) -> Piece:
        """Return the next piece of a reading, and advance the reading past it."""
        self._snapshot.renew(reading)
        key = (reading.generation, reading.index, event_filter.subject_key, encoding)
        piece = self._pieces.get(key)
        if piece is not None and piece.done != (piece.end == reading.end):
            piece = None  # of a reading with another end
        if piece is None or piece.version != self._snapshot.version:
            piece = self._build(reading, event_filter, encoding, piece)
            self._keep(key, piece)
        else:
            self._pieces.move_to_end(key)
        self._snapshot.move(reading, piece.end)
        return piece

    def clear(self) -> None:
        """Drop all pieces."""
        self._pieces.clear()
        self.bytes = 0

    def _build(
        self, reading: Reading, event_filter: Filter, encoding: Encoding, known: Piece | None
    ) -> Piece:
        version = self._snapshot.version
        states, end = self._snapshot.advance(reading, event_filter, MESSAGE_BYTES)
        done = end == reading.end
        # States of a list become stale and never current again, so an equal number means the same states.
        # The last piece also has the number of missing states.
        if known is not None and not done and (known.end, known.states) == (end, len(states)):
            return known._replace(version=version)
        data = None
        if states or done:
            missing = self._snapshot.missing(event_filter) if done else {}
            data = encoding.encode([EncodedSnapshot([record.encoded for record in states], done, missing)])
        return Piece(version, end, done, len(states), data)

    def _keep(self, key: tuple[Any, ...], piece: Piece) -> None:
        replaced = self._pieces.pop(key, None)
        self._pieces[key] = piece
        self.bytes += _size(piece) - (0 if replaced is None else _size(replaced))
        while self.bytes > self._max_bytes:
            _, dropped = self._pieces.popitem(last=False)
            self.bytes -= _size(dropped)


def _size(piece: Piece) -> int:
    return _OVERHEAD + (0 if piece.data is None else len(piece.data))
