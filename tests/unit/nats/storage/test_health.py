"""Responses of the monitoring port, in the words of a real nats-server 2.15."""

from typing import Any

import orjson
import pytest

from tickertape.nats.storage.health import parse_health, parse_usage
from tickertape.nats.storage.problems import StoreCause

FILE = "/data/jetstream/$G/streams/EVENTS/msgs/4.blk"
WRITE_ERROR = "JetStream stream '$G > EVENTS' write error: "


def health(error: str) -> bytes:
    """Build the body of an unhealthy response."""
    return orjson.dumps({"status": "unavailable", "error": error})


@pytest.mark.parametrize(
    ("error", "cause", "reason", "hint"),
    [
        (
            f"{WRITE_ERROR}write {FILE}: no space left on device",
            StoreCause.FULL,
            "disk is full",
            "free space",
        ),
        (
            f"{WRITE_ERROR}Error creating msg block file: open {FILE}: no space left on device",
            StoreCause.FULL,
            "disk is full",
            "free space",
        ),
        (
            f"{WRITE_ERROR}write {FILE}: disk quota exceeded",
            StoreCause.FULL,
            "quota of its user",
            "free space",
        ),
        (f"{WRITE_ERROR}open {FILE}: read-only file system", StoreCause.READ_ONLY, "read-only", "writable"),
        (f"{WRITE_ERROR}open {FILE}: permission denied", StoreCause.READ_ONLY, "may not write", "writable"),
        (f"{WRITE_ERROR}write {FILE}: file too large", StoreCause.FAILED, "failed", "repair the store"),
        (f"{WRITE_ERROR}write {FILE}: input/output error", StoreCause.FAILED, "failed", "repair the store"),
        ("JetStream not enabled (10076)", StoreCause.DISABLED, "disabled JetStream", "writable"),
    ],
)
def test_write_errors_are_named(error: str, cause: StoreCause, reason: str, hint: str) -> None:
    """Each says what happened, and that nats-server must be restarted; none blames permissions in NATS."""
    problem = parse_health(503, health(error))
    assert problem is not None
    assert problem.cause is cause
    assert problem.needs_restart
    assert reason in problem.message
    assert hint in problem.hint
    assert "restart nats-server" in problem.hint


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"status":"ok"}'),
        (503, health("JetStream has not established contact with a meta leader")),
        (503, health("JetStream stream '$G > EVENTS' is not current: replica")),
        (503, b"{}"),
        (503, b'{"error": 7}'),
    ],
)
def test_other_states_are_no_problem_of_the_store(status: int, body: bytes) -> None:
    """A server that starts, or a replica that catches up, can write its store."""
    assert parse_health(status, body) is None


def usage(
    *,
    storage: int = 0,
    maximum: int = 1 << 40,
    account: tuple[int, int] = (0, (1 << 64) - 1),
    config: dict[str, Any] | None = None,
    state: dict[str, int] | None = None,
) -> bytes:
    """Build a response of ``/jsz`` with one account and one stream."""
    stream = {"name": "EVENTS", "config": config or {}, "state": state or {}}
    detail = {"name": "A", "storage": account[0], "reserved_storage": account[1], "stream_detail": [stream]}
    return orjson.dumps({"storage": storage, "config": {"max_storage": maximum}, "account_details": [detail]})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (usage(account=(9_957_960, 10_000_000)), "account A has used its storage quota"),
        (usage(storage=104_800_000, maximum=104_857_600), "max_file_store is reached"),
        (
            usage(config={"discard": "new", "max_bytes": 5_000_000}, state={"bytes": 4_953_960}),
            "stream EVENTS is full and rejects new messages",
        ),
        (
            usage(config={"discard": "new", "max_msgs": 50}, state={"messages": 50}),
            "stream EVENTS is full and rejects new messages",
        ),
    ],
)
def test_reached_limits_are_named(body: bytes, reason: str) -> None:
    """A reached limit needs no restart."""
    problem = parse_usage(body, {"EVENTS"})
    assert problem is not None
    assert problem.cause is StoreCause.QUOTA
    assert not problem.needs_restart
    assert reason in problem.message


@pytest.mark.parametrize(
    "body",
    [
        usage(),
        usage(account=(5_000_000, 10_000_000)),
        usage(config={"discard": "old", "max_bytes": 5_000_000}, state={"bytes": 5_000_000}),
        usage(config={"discard": "new", "max_bytes": -1, "max_msgs": -1}, state={"bytes": 1, "messages": 1}),
        b"[]",
        b'{"account_details": [7, {"stream_detail": [{"name": "EVENTS", "config": 1, "state": []}]}]}',
    ],
)
def test_a_server_below_its_limits_can_store(body: bytes) -> None:
    """No limit, room below it, or a stream that deletes its oldest messages."""
    assert parse_usage(body, {"EVENTS"}) is None


def test_the_limits_of_others_do_not_matter() -> None:
    """Another account may be full, as may a stream that Tickertape does not use."""
    assert parse_usage(usage(account=(10, 10)), {"events_of_others"}) is None
