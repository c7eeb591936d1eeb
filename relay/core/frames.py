"""Messages as bytes: JSON text in a WebSocket frame, built once and handed to every member of a feed.

A server's frame is not masked (RFC 6455, 5.1), so the same bytes serve all connections.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from contracts.wire import MAX_MESSAGE_BYTES, format_cursor
from relay.core.filters import Route
from relay.core.log import Record

BATCH_BYTES: Final = 64 * 1024
"""Bytes of items put into one frame before the next is begun; an event larger than this goes alone."""

_EVENTS: Final = b'{"type":"events","events":['
_SNAPSHOT: Final = b'{"type":"snapshot","events":['
_TEXT: Final = 0x81  # FIN and the opcode of a text message


def item(route: Route, seq: int, payload: bytes) -> bytes:
    """JSON of one event with its place."""
    return b'%b%d,"event":%b}' % (route.prefix, seq, payload)


def frame(text: bytes) -> bytes:
    """One WebSocket text frame."""
    return _header(len(text)) + text


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((_TEXT, size))
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


def message(kind: str, **fields: Any) -> bytes:
    """Frame of a message that is not made of items."""
    return frame(orjson.dumps({"type": kind, **fields}))


def events(records: Sequence[Record], cursor: str) -> bytes:
    """Frames of ``events``: the records in order, the last frame with the cursor.

    Args:
        records: at least one.
        cursor: the place reached after all of them.
    """
    end = b'],"cursor":"%b"}' % cursor.encode()
    size = sum(len(record.item) for record in records)
    if size + len(records) <= BATCH_BYTES or len(records) == 1:
        return _batch(_EVENTS, records, size, end)
    epoch = cursor.partition("-")[0]
    batches = _split(records)
    frames = [
        _batch(
            _EVENTS,
            batch,
            sum(len(record.item) for record in batch),
            b'],"cursor":"%b"}' % format_cursor(epoch, batch[-1].seq).encode(),
        )
        for batch in batches[:-1]
    ]
    last = batches[-1]
    frames.append(_batch(_EVENTS, last, sum(len(record.item) for record in last), end))
    return b"".join(frames)


def snapshot(records: Sequence[Record]) -> bytes:
    """Frames of ``snapshot``, the last with ``done``; one empty frame when there is no state."""
    if not records:
        return frame(_SNAPSHOT + b'],"done":true}')
    batches = _split(records)
    return b"".join(
        _batch(
            _SNAPSHOT,
            batch,
            sum(len(record.item) for record in batch),
            b'],"done":true}' if batch is batches[-1] else b'],"done":false}',
        )
        for batch in batches
    )


def _batch(begin: bytes, records: Sequence[Record], size: int, end: bytes) -> bytes:
    length = len(begin) + size + len(records) - 1 + len(end)
    assert length <= MAX_MESSAGE_BYTES
    items = [record.item for record in records]
    # The header and the ends ride on the first and last item, so that one join copies each payload once.
    items[0] = _header(length) + begin + items[0]
    items[-1] += end
    return b",".join(items)


def _split(records: Sequence[Record]) -> list[list[Record]]:
    batches: list[list[Record]] = []
    size = BATCH_BYTES + 1
    for record in records:
        size += len(record.item) + 1
        if size > BATCH_BYTES:
            batches.append([])
            size = len(record.item) + 1
        batches[-1].append(record)
    return batches
