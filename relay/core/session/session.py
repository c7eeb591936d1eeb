"""One client's side of the protocol: what it may say in which state, and how it is answered.

The table at the end is the whole of it; ``sessions.py`` carries out what the table decides.
"""

import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Protocol

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import Auth, ClientMessage, Ping, ProtocolError, Subscribe
from tickertape.relay.core.fanout.batch import Encoding
from tickertape.relay.core.fanout.feed import Member
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request

_FILTER_ERRORS: Final = frozenset(
    {
        ErrorCode.BAD_SUBJECTS,
        ErrorCode.BAD_LEVEL,
        ErrorCode.BAD_MODE,
        ErrorCode.BAD_CURSOR,
        ErrorCode.BAD_SINCE,
        ErrorCode.BAD_INTERVAL,
    }
)


class Link(Protocol):
    """What a session writes to; no call blocks."""

    @property
    def encoding(self) -> Encoding:
        """How it is written to."""

    def send(self, data: Any) -> None:
        """Write what ``encoding`` made."""

    def admit(self, grant: Grant) -> bool:
        """Count it as one of its token's subject; False when that has connections enough."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""

    def abort(self) -> None:
        """Cut the connection, whatever is still to be said."""


RETRY_AFTER_MS: Final = {CloseCode.TOO_MANY: 5_000, CloseCode.UNAVAILABLE: 1_000}
"""Milliseconds after which whoever is refused with such a code may try again, at the earliest."""

_CLOSE_CODES: Final = {
    ErrorCode.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorCode.TIMEOUT: CloseCode.TIMEOUT,
    ErrorCode.TOO_MANY: CloseCode.TOO_MANY,
    ErrorCode.UNAVAILABLE: CloseCode.UNAVAILABLE,
    ErrorCode.INTERNAL: CloseCode.INTERNAL_ERROR,
} | dict.fromkeys(_FILTER_ERRORS, CloseCode.BAD_FILTER)


def close_code(error: ProtocolError) -> CloseCode:
    """Code with which a session ends after a client's error."""
    return _CLOSE_CODES.get(error.code, CloseCode.MISUSE)


class State(Enum):
    """Where a session is in its life."""

    WAITING = auto()
    """It has not shown a token yet; nothing is sent to it but ``error`` and ``bye``."""
    FOLLOWING = auto()
    """It has a filter and a place in the log."""
    CLOSING = auto()
    """``bye`` was sent; nothing goes out any more."""


class Action(Enum):
    """What the hub does about a message."""

    PONG = auto()
    START = auto()
    ADMIT = auto()
    RENEW = auto()
    REFUSE = auto()
    IGNORE = auto()


class Session(Member):
    """One client: a filter, and a cursor in the log.

    Args:
        id: for logs and ``welcome``.
        link: where it writes to.
        asked: what it wants to follow.
        fault: called with it, and with an exception that was raised on its behalf.

    Attributes:
        asked: what it asked for last, before its grant narrowed it.
        wanted: what its grant leaves of that; None until it has shown a token.
        grant: what it may see; None until it has shown a token.
        due: when its token, or its time to show one, has to be looked at; UNIX seconds, infinite without one.
        failed: True once code that ran on its behalf has raised; it is ended then, and only then.
        locating: what it asked for, while the stream is asked where that begins.
    """

    __slots__ = ("deadline", "failed", "filter", "grant", "id", "link", "locating", "request", "state")

    def __init__(
        self, id: str, link: Link, request: Request, fault: Callable[["Session", Exception], None]
    ) -> None:
        super().__init__(link.send, link.encoding, fault)
        self.id = id
        self.link = link
        self.request = request
        self.filter: Filter | None = None
        self.grant: Grant | None = None
        self.deadline = math.inf
        self.state = State.WAITING
        self.failed = False
        self.locating: Request | None = None

    def __repr__(self) -> str:
        return f"Session({self.id}, {self.state.name}, cursor={self.cursor}, writable={self.writable})"


TABLE: Final[dict[tuple[State, type], Action]] = {
    (State.WAITING, Ping): Action.REFUSE,
    (State.WAITING, Subscribe): Action.REFUSE,
    (State.WAITING, Auth): Action.ADMIT,
    (State.FOLLOWING, Ping): Action.PONG,
    (State.FOLLOWING, Subscribe): Action.START,
    (State.FOLLOWING, Auth): Action.RENEW,
    (State.CLOSING, Ping): Action.IGNORE,
    (State.CLOSING, Subscribe): Action.IGNORE,
    (State.CLOSING, Auth): Action.IGNORE,
}


def decide(state: State, message: ClientMessage) -> Action:
    """What a message means in a state."""
    return TABLE[state, type(message)]
