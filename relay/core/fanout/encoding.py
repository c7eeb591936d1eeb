"""Messages as bytes: JSON text in a WebSocket frame, built once and handed to every member of a feed.

A server's frame is not masked (RFC 6455, 5.1), so the same bytes serve all connections of one variant. With
permessage-deflate (RFC 7692) no context is kept between messages, so that holds for compressed ones too.
"""

import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

import orjson
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, format_cursor
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.fanout.filters import Route

BATCH_BYTES: Final = 64 * 1024
"""Bytes of items put into one frame before the next is begun; an event larger than this goes alone."""

DEFLATE_FROM: Final = 256
"""Bytes of a text from which compressing it pays."""

DEFLATE_LEVEL: Final = 6
"""A sixth fewer bytes than level 1 for twice the time, which is paid once for all members of a feed."""

_EVENTS: Final = b'{"type":"events","events":['
_SNAPSHOT: Final = b'{"type":"snapshot","events":['
_TEXT: Final = 0x81  # FIN and the opcode of a text message
_DEFLATED: Final = 0xC1  # the same with RSV1
_TAIL: Final = b"\x00\x00\xff\xff"  # ends a flushed deflate block; RFC 7692, 7.2.1 takes it off


class Variant(IntEnum):
    """How a connection wants its frames."""

    PLAIN = 0
    DEFLATED = 1


def item(route: Route, seq: int, payload: bytes) -> bytes:
    """JSON of one event with its place."""
    return b'%b%d,"event":%b}' % (route.prefix, seq, payload)


def frame(text: bytes, variant: Variant = Variant.PLAIN) -> bytes:
    """One WebSocket text frame."""
    if variant is Variant.DEFLATED and len(text) >= DEFLATE_FROM:
        return _deflated([text])
    return _header(_TEXT, len(text)) + text


def message(kind: str, **fields: Any) -> bytes:
    """Frame of a message that is not made of items."""
    return frame(orjson.dumps({"type": kind, **fields}))


def events(
    records: Sequence[Record],
    cursor: str,
    variant: Variant = Variant.PLAIN,
    conflated: int | None = None,
) -> bytes:
    """Frames of ``events``: the records in order, the last frame with the cursor.

    Args:
        records: at least one.
        cursor: the place reached after all of them.
        variant: how they are written.
        conflated: events replaced by newer ones of their subject; told in the first frame, before any
            cursor passes them.
    """
    begin = _EVENTS if conflated is None else b'{"type":"events","conflated":%d,"events":[' % conflated
    batches = _split(records)
    if len(batches) == 1:
        return _batch(begin, records, b'],"cursor":"%b"}' % cursor.encode(), variant)
    epoch = cursor.partition("-")[0]
    found = []
    for number, batch in enumerate(batches):
        place = (
            cursor if number == len(batches) - 1 else format_cursor(epoch, batch[-1].seq, batch[-1].stored_ns)
        )
        found.append(_batch(begin, batch, b'],"cursor":"%b"}' % place.encode(), variant))
        begin = _EVENTS if conflated is None else b'{"type":"events","conflated":0,"events":['
    return b"".join(found)


def snapshot(records: Sequence[Record], variant: Variant = Variant.PLAIN) -> bytes:
    """Frames of ``snapshot``, the last with ``done``; one empty frame when there is no state."""
    if not records:
        return frame(_SNAPSHOT + b'],"done":true}')
    batches = _split(records)
    last = batches[-1]
    return b"".join(
        _batch(_SNAPSHOT, batch, b'],"done":true}' if batch is last else b'],"done":false}', variant)
        for batch in batches
    )


def texts(data: bytes) -> list[str]:
    """The messages in plain frames as they are made here, for whoever may only send messages."""
    found = []
    at = 0
    while at < len(data):
        size = data[at + 1]
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        found.append(str(data[at : at + size], "utf-8"))
        at += size
    return found


def _header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return b"%c\x7e%b" % (first, size.to_bytes(2, "big"))
    return b"%c\x7f%b" % (first, size.to_bytes(8, "big"))


def _deflated(parts: list[bytes]) -> bytes:
    squeeze = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    found = [squeeze.compress(part) for part in parts]
    found.append(squeeze.flush(zlib.Z_SYNC_FLUSH).removesuffix(_TAIL))
    return _header(_DEFLATED, sum(map(len, found))) + b"".join(found)


def _batch(begin: bytes, records: Sequence[Record], end: bytes, variant: Variant) -> bytes:
    items = [record.item for record in records]
    length = len(begin) + sum(map(len, items)) + len(items) - 1 + len(end)
    assert length <= MAX_MESSAGE_BYTES
    if variant is Variant.DEFLATED and length >= DEFLATE_FROM:
        return _deflated([begin, b",".join(items), end])
    # The header and the ends ride on the first and last item, so that one join copies each payload once.
    items[0] = _header(_TEXT, length) + begin + items[0]
    items[-1] += end
    return b",".join(items)


def _split(records: Sequence[Record]) -> list[Sequence[Record]]:
    size = sum(len(record.item) + 1 for record in records)
    if size <= BATCH_BYTES or len(records) == 1:
        return [records]
    batches: list[list[Record]] = []
    size = BATCH_BYTES + 1
    for record in records:
        size += len(record.item) + 1
        if size > BATCH_BYTES:
            batches.append([])
            size = len(record.item) + 1
        batches[-1].append(record)
    return list(batches)
