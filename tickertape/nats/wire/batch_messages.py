"""Messages of a JetStream atomic batch (ADR-50), encoded together: nats-py takes long for each."""

from functools import lru_cache

from tickertape.contracts import subjects
from tickertape.errors import TickertapeError


class InvalidSubject(TickertapeError, ValueError):
    """Subject that cannot be sent."""


class BatchMessages:
    """Messages of a batch, apart from the last one, which commits it.

    Args:
        batch: identifier of the batch.

    Attributes:
        count: number of messages.
    """

    def __init__(self, batch: str) -> None:
        self.count = 0
        self._head = f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: "
        self._parts: list[bytes] = []

    def add(self, subject: str, body: bytes, expected: int | None = None, message_id: str = "") -> None:
        """Add a message.

        Args:
            subject: subject in NATS.
            body: body of the message.
            expected: sequence of the last message on the subject, as the condition for the batch.
            message_id: identifier for deduplication; empty for none.

        Raises:
            InvalidSubject: the subject is not valid.
        """
        self.count += 1
        condition = "" if expected is None else f"\r\nNats-Expected-Last-Subject-Sequence: {expected}"
        if message_id:
            condition += f"\r\nNats-Msg-Id: {message_id}"
        headers = f"{self._head}{self.count}{condition}\r\n\r\n"
        size = len(headers)
        self._parts += (
            f"HPUB {_checked(subject)} {size} {size + len(body)}\r\n{headers}".encode(),
            body,
            b"\r\n",
        )

    def encode(self) -> bytes:
        """Return the operations of the protocol that publish the messages."""
        return b"".join(self._parts)


@lru_cache(maxsize=1 << 14)
def _checked(subject: str) -> str:
    """Return a subject that contains nothing that ends it, or the operation."""
    error = subjects.find_subject_error(subject)
    if error is not None:
        raise InvalidSubject(f"{subject!r} is not a subject: {error}")
    return subject


__all__ = ["BatchMessages", "InvalidSubject"]
