"""Our own faults: an exception that is raised on behalf of a session ends that session, and nothing else.

Code runs on behalf of one session in these places, and each is guarded at its outermost call:

- what a client does: the methods of ``Sessions`` and ``SessionRegistry`` that are marked ``contained``; what
  happens before and around them, in ``relay/transport/websocket.py`` and ``relay/asgi/connection.py``, by the
  same means there;
- what its feed does for all members (``Fanout.flush``, ``hole``, ``heartbeat``): each write is one session's,
  the making of a batch is that of all live members;
- catching up (``Fanout.serve_behind``): one session's turn;
- the clock (``Sessions.tick``: tokens that end, signs of life; ``Connections.ping_batch``): each is one
  session's;
- what only the stream can tell (``relay/ingest/replay_readers.py``): a session's place; a stretch of the
  stream is that of all sessions that wait for it;
- the upstream's state, another stream, revoked tokens, the farewell: one session's each.

A request over HTTP has no session; ``history_endpoint.py`` and ``routes.py`` in ``relay/endpoints`` answer it
with 500.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from tickertape.relay.core.fanout.feed import Member

REASON: Final = "internal error of the relay"
"""What the client is told; the rest is in the relay's log, under the session's id."""

T = TypeVar("T")
S = TypeVar("S", bound=Member)
P = ParamSpec("P")


def contained(
    method: Callable[Concatenate[T, S, P], None],
) -> Callable[Concatenate[T, S, P], None]:
    """Let an exception end the session that a method is called for, and nothing else.

    Args:
        method: its first argument is the session.
    """

    @wraps(method)
    def guarded(self: T, session: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, session, *args, **kwargs)
        except Exception as error:
            session.fail(error)

    return guarded
