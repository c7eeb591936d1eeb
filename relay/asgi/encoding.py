"""Encoding of messages as texts, for servers that frame them: those of hosts with a mounted feed.

As in ``transport/websocket/encoding.py``, a batch is encoded once, however many clients receive it.
"""

from collections.abc import Sequence
from typing import Final

from tickertape.contracts.encode import Outgoing, encode_message


class TextBatch:
    """Batch of text messages for a server that frames them itself; its length is in bytes.

    Args:
        texts: messages in order, as UTF-8.
    """

    __slots__ = ("_size", "texts")

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = [str(text, "utf-8") for text in texts]
        self._size = sum(map(len, texts))

    def __len__(self) -> int:
        return self._size


class TextEncoding:
    """Encoding of messages as texts, for servers that frame them."""

    def encode(self, messages: Sequence[Outgoing]) -> TextBatch:
        """Return the texts of messages, in order."""
        return TextBatch([encode_message(message).join() for message in messages])


TEXT: Final = TextEncoding()
