"""Reasons why nats-server cannot store events, with what the operator can do about each.

After a failed write to its disk, nats-server stores nothing more in that stream until it is restarted, even
when there is space again. It answers other requests as before, so only ``/healthz`` shows the failure
(``health.py``), or a publish without a reply. When a limit of the server, the account or the stream is
reached, it rejects the publish with an error instead, and continues when there is room.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NO_REPLY: Final = "JetStream has not replied, as when nats-server cannot write its store"
"""Message for a publish without a reply over a connection that works."""

NO_REPLY_HINT: Final = (
    "see /healthz and the log of nats-server; if its disk is full or read-only, free space, then restart "
    "nats-server"
)

NO_STREAM_HINT: Final = (
    "create the streams with 'tickertape streams apply'; if they exist, nats-server may have disabled "
    "JetStream because it cannot write its store: see its log"
)
"""Hint for a publish on a subject that no stream stores."""


FULL_HINT: Final = "free space, then restart nats-server"
READ_ONLY_HINT: Final = "make the store writable, then restart nats-server"
QUOTA_HINT: Final = "raise max_file of the account in nats-server's configuration, or reduce its streams"
SERVER_LIMIT_HINT: Final = (
    "free space, raise max_file_store in nats-server's configuration, and restart nats-server"
)
STREAM_LIMIT_HINT: Final = (
    "let the stream discard old messages, or raise its limits ('tickertape streams show')"
)


class StoreCause(StrEnum):
    """Reason why nats-server cannot store events."""

    FULL = "disk_full"
    READ_ONLY = "read_only"
    QUOTA = "quota"
    """A limit of the server, the account or the stream; storing resumes without a restart."""
    FAILED = "write_error"
    DISABLED = "jetstream_disabled"


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Reason why nats-server cannot store events; its text is ``message; hint``.

    Attributes:
        cause: kind of the problem.
        reason: description, as the second half of a sentence.
        hint: what the operator can do.
    """

    cause: StoreCause
    reason: str
    hint: str

    @property
    def needs_restart(self) -> bool:
        """Whether only a restart of nats-server resolves the problem."""
        return self.cause is not StoreCause.QUOTA

    @property
    def message(self) -> str:
        """Description without the hint."""
        return f"nats-server cannot store events: {self.reason}"

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


_SERVER_LIMIT: Final = ("the storage limit of nats-server is reached", SERVER_LIMIT_HINT)
_STORE_FAILED: Final = 10077
_STORAGE_CODES: Final[dict[int, tuple[str, str]]] = {
    10002: ("the storage quota of the account is used up", QUOTA_HINT),
    10023: _SERVER_LIMIT,
    10028: (
        "the memory limit of nats-server is reached",
        "raise max_memory_store in nats-server's configuration, and restart nats-server",
    ),
    10047: _SERVER_LIMIT,
    _STORE_FAILED: ("nats-server cannot write its store", FULL_HINT),
}
"""Reason and hint for each ``err_code`` that says that storage cannot take a message."""


def storage_failure(code: int, description: str) -> tuple[str, str] | None:
    """Return message and hint for a JetStream error, if it says that storage cannot take a message.

    Args:
        code: JetStream's ``err_code``.
        description: JetStream's description.

    Returns:
        None for any other error.
    """
    if code not in _STORAGE_CODES:
        return None
    reason, hint = _STORAGE_CODES[code]
    # The same code reports a limit of a stream that discards new messages, such as "maximum bytes exceeded".
    if code == _STORE_FAILED and description.startswith("maximum "):
        reason, hint = "the stream is full and rejects new messages", STREAM_LIMIT_HINT
    return f"NATS cannot store events: {reason} ({description}, code {code})", hint
