"""``tickertape``, or a host application, in which code that runs for one session raises.

Run by a test as ``python -m`` with ``relay serve ...`` or ``host '{...}'``.

Invariant: each place raises for its own victim only, the session that requests ``subject(place)``. Replay
readers do not know for which session they read; there a victim requests a time that no other does.
"""

import inspect
import sys
from functools import wraps
from importlib import import_module
from typing import Any, Final

from tickertape.contracts.events import parse_time
from tickertape.relay.core.fanout.feed import Feed
from tickertape.relay.core.session.session import Session
from tickertape.relay.core.session.subscription import Request

from tests.support.programs import asgi_host
from tickertape.cli import main as cli

SINCE: Final = "2001-02-03T04:05:06Z"
"""Time that the victim of ``ReplayReaders.position_at`` requests."""

READERS: Final = (
    "tickertape.relay.ingest.replay_readers:ReplayReaders.position_at",
    "tickertape.relay.ingest.replay_readers:ReplayReaders._read_chunk",
)

TARGETS: Final = (
    "tickertape.relay.transport:handshake.decide",
    "tickertape.relay.transport:handshake._authorize",
    "tickertape.relay.core.session.sessions:Sessions._admit",
    "tickertape.relay.core.session.session_start:SessionStart.start",
    "tickertape.relay.core.fanout.fanout:Fanout.attach",
    "tickertape.relay.transport.websocket.connection:Connection._parse",
    "tickertape.relay.asgi.connection:AsgiConnection._handle_message",
    "tickertape.relay.asgi.connection:AsgiConnection._send_outbox",
    "tickertape.relay.core.fanout.feed:Feed.take_batch",
    "tickertape.relay.core.session.session_start:SessionStart.start_located",
    "tickertape.relay.ingest.replay_readers:ReplayReaders._locate",
    "tickertape.relay.core.fanout.catch_up:CatchUp._serve",
    "tickertape.relay.endpoints.history:History.page",
    "tickertape.relay.endpoints.read_endpoint:ReadEndpoint.__call__",
    *READERS,
)


class InjectedError(Exception):
    """The injected exception."""


def subject(target: str) -> str:
    """Return the subject that the victim of a place requests."""
    return f"log.critical.victim{TARGETS.index(target)}"


def is_for(expected: str, one: Any) -> bool:
    """Return whether an argument of a call belongs to the victim that requests a subject."""
    if isinstance(one, Session):
        return expected in one.request.subjects
    if isinstance(one, Feed):
        return expected in one.filter.subjects
    if isinstance(one, Request):
        return expected in one.subjects
    if isinstance(one, str):
        return f"subjects={expected}&" in f"{one}&"
    if isinstance(one, dict):
        return is_for(expected, one.get("query_string", b"").decode())
    inside = getattr(one, "_session", None) or getattr(one, "request", None)
    return inside is not None and is_for(expected, inside)


def arm(target: str) -> None:
    """Make a method raise when it is called for the victim of its place."""
    module, _, path = target.partition(":")
    owner, _, name = path.partition(".")
    kind = getattr(import_module(module), owner)
    real = getattr(kind, name)

    def check(arguments: tuple[Any, ...]) -> None:
        if target == READERS[0]:
            broken = arguments[1] == parse_time(SINCE).timestamp()
        else:
            broken = target in READERS or any(is_for(subject(target), one) for one in arguments)
        if broken:
            raise InjectedError(target)

    @wraps(real)
    async def broken_coroutine(*arguments: Any, **named: Any) -> Any:
        check(arguments)
        return await real(*arguments, **named)

    @wraps(real)
    def broken(*arguments: Any, **named: Any) -> Any:
        check(arguments)
        return real(*arguments, **named)

    setattr(kind, name, broken_coroutine if inspect.iscoroutinefunction(real) else broken)


if __name__ == "__main__":
    for one in TARGETS:
        arm(one)
    if sys.argv.pop(1) == "relay":
        cli.main()
    else:
        asgi_host.main()
