"""Containment of internal errors: an exception raised on behalf of a session ends only that session.

Code runs on behalf of a session in these places, and each is guarded at its outermost call:

- client actions: the methods of ``Sessions`` and ``SessionRegistry`` marked ``contained``; the code around
  them, in the connections of ``transport/websocket``, ``transport/http_stream`` and ``asgi``, has guards of
  its own;
- delivery to a feed (``Fanout.flush``, ``publish_missing``, ``heartbeat``): a failed write ends one session,
  a failure to build a batch ends the live members of the feed;
- catching up (``Fanout.catch_up``): the session whose turn it is;
- timers (``Sessions.tick``: tokens; ``Sessions.heartbeat``; ``Connections.ping_batch``): one session each;
- reading the stream (``relay/ingest/replay_readers.py``): the session to locate, or all sessions that wait
  for a replay chunk;
- upstream reports, a replaced stream, revoked tokens, the drain: one session each.

An HTTP request has no session; ``read_endpoint.py`` and ``routes.py`` in ``relay/endpoints`` answer it
with 500.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from tickertape.relay.core.fanout.feed import Member

INTERNAL_ERROR_REASON: Final = "internal error of the relay"
"""Reason sent to the client; the details are in the relay's log, under the session id."""

T = TypeVar("T")
S = TypeVar("S", bound=Member)
F = TypeVar("F", bound="Failing")
P = ParamSpec("P")


def contained(
    method: Callable[Concatenate[T, S, P], None],
) -> Callable[Concatenate[T, S, P], None]:
    """Make an exception in a method end only the session that the method is called for.

    Args:
        method: method whose first argument is the session.
    """

    @wraps(method)
    def guarded(self: T, session: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, session, *args, **kwargs)
        except Exception as error:
            session.fail(error)

    return guarded


class Failing(Protocol):
    """Connection that an exception ends."""

    def fail(self, error: Exception) -> None:
        """Close the connection after an internal error."""


def contained_in_connection(method: Callable[Concatenate[F, P], None]) -> Callable[Concatenate[F, P], None]:
    """Make an exception in a callback of a connection end only this connection."""

    @wraps(method)
    def guarded(connection: F, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(connection, *args, **kwargs)
        except Exception as error:
            connection.fail(error)

    return guarded
