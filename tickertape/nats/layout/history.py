"""Source of the stream HISTORY, which outlives the EVENTS that it copies from."""

import secrets
from typing import Any, Final

from nats.aio.client import Client

from tickertape.names import Names
from tickertape.nats.jetstream_api import PermissionDenied, request, stream_error, stream_info
from tickertape.nats.layout.epochs import epoch_of, is_older
from tickertape.nats.stream_differences import read_mark, set_mark

_MARKS: Final = 2_000_000_000
"""Number of different marks: NATS accepts 31 bits."""

_FIRST_MARK: Final = 100_000
"""Smallest mark, longer than any token."""


def mark_history(
    config: dict[str, Any], existing: dict[str, Any] | None, events: dict[str, Any] | None
) -> bool:
    """Mark the source of HISTORY with the EVENTS that it copies; return whether an existing one differs."""
    if events is None:
        return False
    mark = "" if existing is None else read_mark(existing["config"])
    if existing is None or is_older(existing, events):
        set_mark(config, _mark_of(int(epoch_of(events["created"]), 16)))
    elif mark:
        # A restored stream may have the mark of the EVENTS that was backed up.
        set_mark(config, mark)
    return existing is not None and mark != read_mark(config)


def _mark_of(number: int) -> str:
    return str(_FIRST_MARK + number % _MARKS)


async def attach_history(nc: Client, existing: dict[str, Any], config: dict[str, Any]) -> str:
    """Make HISTORY copy from an EVENTS that was created after it; return a message."""
    name, problem = config["name"], "copied from an earlier EVENTS"
    try:
        response = await request(nc, f"STREAM.UPDATE.{name}", {**existing, "sources": config["sources"]})
    except PermissionDenied:
        return f"stream {name} {problem}, and has no new events until you run 'tickertape streams apply'"
    if "error" in response:
        raise stream_error(name, response)
    return f"stream {name} {problem}, and copies from the current one now"


async def restart_history(nc: Client, names: Names) -> None:
    """Make an existing HISTORY copy all of EVENTS again, because that was restored to an earlier state."""
    existing = await stream_info(nc, names.stream("HISTORY"))
    events = await stream_info(nc, names.stream("EVENTS"))
    if existing is None or events is None:
        return
    config = existing["config"]
    mark = _mark_of(int(epoch_of(events["created"]), 16))
    # Before nats-server 2.15, a restored stream keeps its creation time.
    set_mark(config, _mark_of(secrets.randbits(64)) if mark == read_mark(config) else mark)
    response = await request(nc, f"STREAM.UPDATE.{config['name']}", config)
    if "error" in response:
        raise stream_error(config["name"], response)
