"""Our own faults: an exception that is raised on behalf of a session ends that session, and nothing else.

Code runs on behalf of one session in these places, and each is guarded at its outermost call:

- what a client does: the methods of ``Hub`` that are marked ``contained``; what happens before and around
  them, in ``relay/transport/websocket.py`` and ``relay/asgi/connection.py``, by the same means there;
- what its feed does for all members (``Fanout.flush``, ``hole``, ``heartbeat``): each write is one session's,
  the making of a unit is that of all members at the head;
- catching up (``Fanout.serve_behind``): one session's turn;
- the clock (``Hub.tick``: tokens that end, signs of life; ``Gate.ping_some``): one session's each;
- what only the stream can tell (``relay/ingest/replay_readers.py``): a session's place; a stretch of the
  stream is that of all sessions that wait for it;
- the upstream's state, another stream, revoked tokens, the farewell: one session's each.

A request over HTTP has no session; ``history_endpoint.py`` and ``routes.py`` in ``relay/endpoints`` answer it
with 500.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol

from tickertape.relay.core.session.session import Session

REASON: Final = "internal error of the relay"
"""What the client is told; the rest is in the relay's log, under the session's id."""

P = ParamSpec("P")


class _Owner(Protocol):
    def fault(self, session: Session, error: Exception) -> None: ...


def contained(
    method: Callable[Concatenate[Any, Session, P], None],
) -> Callable[Concatenate[Any, Session, P], None]:
    """Let an exception end the session that a method is called for, and nothing else.

    Args:
        method: of an object that has ``fault``; its first argument is the session.
    """

    @wraps(method)
    def guarded(self: _Owner, session: Session, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, session, *args, **kwargs)
        except Exception as error:
            self.fault(session, error)

    return guarded
