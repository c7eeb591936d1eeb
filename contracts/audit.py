"""Audit records: who connected with which grant, what was rejected, who silenced what, and what changed.

Programs store them in the stream ``AUDIT`` if ``--audit`` is set, on ``audit.<record>.<source>``. No record
contains a token, and no client of a feed can read one. Records that could not be stored are counted in a
later one.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator
from tickertape.contracts.events import Timestamp
from tickertape.contracts.messages import LevelName
from tickertape.contracts.subjects import escape

from tickertape.text import escape_surrogates

MAX_USER_AGENT: Final = 200
"""Maximum characters of a user agent."""

MAX_PATTERNS: Final = 32
"""Maximum patterns of a grant that a record lists."""

PREFIX: Final = "audit"
"""First token of the subjects of all records."""

Count = Annotated[int, Field(ge=0)]


class AuditRecord(BaseModel):
    """Fields of every record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timestamp: Timestamp
    """Time of what happened, or of its first occurrence if the record counts several."""
    source: str
    """Program that wrote the record: host name of a relay, with the number of a worker, or of a command."""

    @field_validator("*", mode="before")
    @classmethod
    def _escape(cls, value: Any) -> Any:
        """Escape lone surrogates, as in undecodable file names, which JSON cannot contain."""
        if isinstance(value, list):
            return [cls._escape(item) for item in value]
        return escape_surrogates(value) if isinstance(value, str) else value

    def encode(self) -> bytes:
        """Encode the record as JSON without absent fields."""
        return self.model_dump_json(exclude_none=True).encode()


class _Client(AuditRecord):
    address: str
    """Address of the client, behind trusted proxies."""
    user_agent: str | None = None
    """``User-Agent`` of the request, truncated."""
    subject: str | None = None
    """Subject of the token, or the name in the certificate."""
    token_id: str | None = None
    """``jti`` of the token."""
    key_id: str | None = None
    """``kid`` of the key that signed the token."""
    certificate: str | None = None
    """SHA-256 fingerprint of the client certificate."""
    subjects: list[str] = []
    """Granted patterns, at most the first 32."""
    deny: list[str] = []
    """Patterns excluded from the grant, at most the first 32."""
    level: LevelName = "DEBUG"
    """Minimum level of the grant."""


class SessionStarted(_Client):
    """Session that was granted access, or whose grant a new token replaced."""

    record: Literal["session_started"] = "session_started"
    session: str
    """Id of the session, as in ``welcome``."""
    transport: Literal["websocket", "sse", "ndjson", "asgi"]
    """Transport: a WebSocket or HTTP stream of the relay, or a connection of a host application."""
    renewed: bool = False
    """Whether the session existed before."""
    expires_at: Timestamp | None = None
    """Expiry of the token or of the certificate."""


class SessionEnded(AuditRecord):
    """Session that ended."""

    record: Literal["session_ended"] = "session_ended"
    session: str
    """Id of the session."""
    code: int
    """Close code; 1006 without a closing handshake."""
    seconds: float
    """Duration of the session."""
    bytes_sent: Count | None = None
    """Bytes that the client received, including the overhead of its transport; absent if unknown."""


class HistoryRead(_Client):
    """Pages of ``GET /events`` that were sent to a client."""

    record: Literal["history_read"] = "history_read"
    count: Count
    """Number of pages since ``timestamp``."""


class Rejected(AuditRecord):
    """Connections, requests or sessions of a client that were rejected for one reason."""

    record: Literal["rejected"] = "rejected"
    address: str
    """Address of the client; empty for the sum of clients that are not listed."""
    reason: str
    """Reason: that of a rejected token, an error code, or the name of the limit; ``other`` for several."""
    count: Count
    """Number of rejections since ``timestamp``."""


class Revoked(AuditRecord):
    """Change of the revocation list, or of the grants of certificates."""

    record: Literal["revoked"] = "revoked"
    sessions: Count
    """Number of sessions that the change ended."""


class Reloaded(AuditRecord):
    """Reload of files after a signal."""

    record: Literal["reloaded"] = "reloaded"
    read: list[str]
    """Description of what is in force now."""
    failed: list[str]
    """Errors of files whose previous content stays in force."""


class Silenced(AuditRecord):
    """Silence of a gateway that a user started or ended."""

    record: Literal["silenced"] = "silenced"
    gateway: str
    """Type and id of the gateway."""
    by: str
    """User name of the operator, as the command found it."""
    reason: str
    """Reason that the operator gave."""
    until: Timestamp | None = None
    """End of the silence; absent if it was ended."""


class Lost(AuditRecord):
    """Number of records that could not be stored."""

    record: Literal["lost"] = "lost"
    count: Count
    """Number of records lost before this one."""


Record: TypeAlias = (
    SessionStarted | SessionEnded | HistoryRead | Rejected | Revoked | Reloaded | Silenced | Lost
)


def record_subject(record: Record) -> str:
    """Return the subject of a record, without the deployment's prefix."""
    return f"{PREFIX}.{record.record}.{escape(record.source[:40] or 'unknown')}"
