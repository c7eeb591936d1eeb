"""Session of one client: its state, and the table of actions for each client message in each state.

The table at the end defines the protocol; ``sessions.py`` performs its actions.
"""

import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Protocol

from tickertape.contracts.client_messages import Auth, ClientMessage, Ping, Subscribe
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.fanout.batch import Encoding
from tickertape.relay.core.fanout.feed import Member
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.core.where.condition import Condition

_FILTER_ERRORS: Final = frozenset(
    {
        ErrorCode.BAD_SUBJECTS,
        ErrorCode.BAD_LEVEL,
        ErrorCode.BAD_MODE,
        ErrorCode.BAD_CURSOR,
        ErrorCode.BAD_SINCE,
        ErrorCode.BAD_INTERVAL,
        ErrorCode.BAD_WHERE,
    }
)


class Link(Protocol):
    """Connection that a session writes to; no method blocks."""

    @property
    def encoding(self) -> Encoding:
        """Encoding of messages to the client."""

    def send(self, data: Any) -> None:
        """Write data that ``encoding`` encoded."""

    def admit(self, grant: Grant) -> bool:
        """Count the connection under the token subject; return False if its connection limit is reached."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""

    def abort(self) -> None:
        """Abort the connection without sending pending data."""


RETRY_AFTER_MS: Final = {CloseCode.TOO_MANY: 5_000, CloseCode.UNAVAILABLE: 1_000}
"""Milliseconds that a client closed with one of these codes is asked to wait before it reconnects."""

_CLOSE_CODES: Final = {
    ErrorCode.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorCode.TIMEOUT: CloseCode.TIMEOUT,
    ErrorCode.TOO_MANY: CloseCode.TOO_MANY,
    ErrorCode.UNAVAILABLE: CloseCode.UNAVAILABLE,
    ErrorCode.INTERNAL: CloseCode.INTERNAL_ERROR,
} | dict.fromkeys(_FILTER_ERRORS, CloseCode.BAD_FILTER)


def close_code(error: ProtocolError) -> CloseCode:
    """Return the close code for an error of the client."""
    return _CLOSE_CODES.get(error.code, CloseCode.MISUSE)


class State(Enum):
    """Lifecycle state of a session."""

    WAITING = auto()
    """The client has not sent a token yet; nothing is sent to it but ``error`` and ``bye``."""
    FOLLOWING = auto()
    """The session has a filter and a position in the log."""
    CLOSING = auto()
    """``bye`` was sent; nothing is sent after it."""


class Action(Enum):
    """Action on a client message."""

    PONG = auto()
    START = auto()
    ADMIT = auto()
    RENEW = auto()
    REJECT = auto()
    IGNORE = auto()


class Session(Member):
    """Session of one client: a filter, and a cursor in the log.

    Args:
        id: id in logs and in ``welcome``.
        link: connection that the session writes to.
        request: first request of the client.
        on_failure: called with the session and an exception raised on its behalf.

    Attributes:
        request: latest request of the client, before intersection with its grant.
        filter: filter of the request after intersection with the grant; None before authentication.
        grant: grant of the client; None before authentication.
        deadline: time at which the token expires, is about to expire, or must have been sent; UNIX seconds,
            infinite if there is no deadline.
        failed: whether an exception was raised on behalf of the session, which is then ended.
        locating: request whose start position is being read from the stream; otherwise None.
        used_condition: condition of the filter, and the client that it is counted for; None without one.
    """

    __slots__ = (
        "deadline", "failed", "filter", "grant", "id", "link", "locating", "request", "state",
        "used_condition",
    )  # fmt: skip

    def __init__(
        self, id: str, link: Link, request: Request, on_failure: Callable[["Session", Exception], None]
    ) -> None:
        super().__init__(link.send, link.encoding, on_failure)
        self.id = id
        self.link = link
        self.request = request
        self.filter: Filter | None = None
        self.grant: Grant | None = None
        self.deadline = math.inf
        self.state = State.WAITING
        self.failed = False
        self.locating: Request | None = None
        self.used_condition: tuple[Condition, str] | None = None

    @property
    def owner(self) -> str:
        """Subject of the client's token; empty without one."""
        return "" if self.grant is None else self.grant.subject

    def __repr__(self) -> str:
        return f"Session({self.id}, {self.state.name}, cursor={self.cursor}, writable={self.writable})"


TABLE: Final[dict[tuple[State, type], Action]] = {
    (State.WAITING, Ping): Action.REJECT,
    (State.WAITING, Subscribe): Action.REJECT,
    (State.WAITING, Auth): Action.ADMIT,
    (State.FOLLOWING, Ping): Action.PONG,
    (State.FOLLOWING, Subscribe): Action.START,
    (State.FOLLOWING, Auth): Action.RENEW,
    (State.CLOSING, Ping): Action.IGNORE,
    (State.CLOSING, Subscribe): Action.IGNORE,
    (State.CLOSING, Auth): Action.IGNORE,
}


def decide(state: State, message: ClientMessage) -> Action:
    """Return the action on a message in a state."""
    return TABLE[state, type(message)]
