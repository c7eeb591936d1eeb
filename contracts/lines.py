"""Encoding of messages as JSON lines: one for each event, and one for each other message.

An event has no ``type``, so that ``select(.event)`` finds the events. An event of a snapshot has
``"snapshot":true``, since it is not an event of the stream after the start. The cursor of a message with
events follows them in a line of its own.
"""

import re
from typing import Final

from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, Outgoing, encode_message

_LINE_BREAK: Final = re.compile(rb"[\r\n]")


def one_line(text: bytes) -> bytes:
    """Return a JSON text without line breaks, which it can only have between tokens."""
    return text if b"\n" not in text and b"\r" not in text else _LINE_BREAK.sub(b" ", text)


def encode_lines(message: Outgoing) -> bytes:
    """Return the lines of a message, each with its line break."""
    if isinstance(message, EncodedEvents):
        conflated = b"" if message.conflated is None else b',"conflated":%d' % message.conflated
        last = b'{"type":"cursor","cursor":"%b"%b}' % (message.cursor.encode(), conflated)
        return b"\n".join([*map(one_line, message.events), last, b""])
    if isinstance(message, EncodedSnapshot):
        states = (b'{"snapshot":true,' + one_line(event).removeprefix(b"{") for event in message.events)
        # Without its states, it has the remaining fields of the message.
        end = encode_message(message._replace(events=[])).join().replace(b'"events":[],', b"", 1)
        return b"\n".join([*states, end, b""])
    return one_line(encode_message(message).join()) + b"\n"
