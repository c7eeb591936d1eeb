"""Findings about free storage and replicas, from JetStream's responses."""

from typing import Any

import pytest

from tickertape.cli.check.nats import Skew, clock_finding
from tickertape.cli.check.storage import check_replicas, check_states, check_storage
from tickertape.names import Names

GIB = 2**30
NAMES = Names()


def stream(name: str, most: int = GIB, has: int = 0, copies: int = 1, **more: Any) -> dict[str, Any]:
    """Return JetStream's response about a stream."""
    return {
        "config": {"name": name, "max_bytes": most, "num_replicas": copies},
        "state": {"bytes": has},
        **more,
    }


def account(limit: int, used: int = 0) -> dict[str, Any]:
    """Return JetStream's response about an account."""
    return {"limits": {"max_storage": limit}, "storage": used}


def only(events: dict[str, Any] | None) -> dict[str, dict[str, Any] | None]:
    """Return a deployment in which only this stream matters."""
    rest = {
        name: stream(name, 0)
        for name in ("LATEST", "HEALTH", "CHECKPOINTS", "WATCHDOG", "REJECTED", "HISTORY")
    }
    return {"EVENTS": events, **rest}


@pytest.mark.parametrize(
    ("limits", "events", "state", "text"),
    [
        (
            account(-1),
            stream("EVENTS", GIB, GIB // 4),
            "ok",
            "no account limit; the streams use 256 MiB and may grow by 768 MiB",
        ),
        (
            account(2 * GIB, GIB),
            stream("EVENTS"),
            "ok",
            "1,024 MiB of 2,048 MiB left; the streams may grow by 1,024",
        ),
        (account(2 * GIB, GIB + 1), stream("EVENTS"), "error", "has 1,024 MiB of 2,048 MiB left"),
        (account(GIB, 2 * GIB), stream("EVENTS"), "error", "has 0 MiB of 1,024 MiB left"),
        (account(GIB), None, "ok", "may grow by 1,024 MiB"),
        (account(GIB - 1), None, "error", "may grow by 1,024 MiB; NATS would reject events"),
        (account(2 * GIB), stream("EVENTS", copies=3), "error", "may grow by 3,072 MiB"),
        ({"tiers": {"R3": account(2 * GIB)}}, stream("EVENTS", copies=3), "ok", "may grow by 1,024 MiB"),
        (account(-1), stream("EVENTS", -1), "warn", "without a limit: EVENTS"),
        (account(GIB, GIB), stream("EVENTS", -1), "error", "has used its storage quota of 1,024 MiB"),
    ],
)
def test_free_storage_is_compared_with_stream_limits(
    limits: dict[str, Any], events: dict[str, Any] | None, state: str, text: str
) -> None:
    """Free storage is compared with how far the streams may grow: a full account rejects events."""
    one = check_storage(limits, only(events), NAMES)
    assert one.state == state
    assert text in one.text
    assert (one.hint == "") == (state == "ok")


def test_full_streams_of_states_are_reported() -> None:
    """A stream that has to delete states is reported before its next message deletes one."""
    streams = {name: stream(name) for name in ("LATEST", "HEALTH")}
    assert check_states({**streams, "EVENTS": None}) == []
    for name, one in streams.items():
        one["state"]["bytes"] = GIB - 1
        (found,) = check_states({**streams, "EVENTS": None})
        assert (found.state, f"stream {name} is full" in found.text) == ("warn", True)
        one["state"]["bytes"] = 0


def test_replicas_that_lag_or_are_offline_are_named() -> None:
    """Replicas that lag or are offline are named by stream and server."""
    cluster = {
        "replicas": [
            {"name": "n1", "current": True},
            {"name": "n2", "current": False},
            {"name": "n3", "current": False, "offline": True},
        ]
    }
    found = check_replicas(only(stream("EVENTS", copies=3, cluster=cluster)), clustered=True)
    assert [one.text for one in found] == [
        "stream EVENTS: the replica on n2 is behind",
        "stream EVENTS: the replica on n3 is offline",
    ]
    assert {one.state for one in found} == {"error"}


def test_a_single_replica_in_a_cluster_is_a_warning() -> None:
    """A single replica in a cluster is a warning; on a single server it is fine."""
    (one,) = check_replicas(only(stream("EVENTS")), clustered=True)
    assert one.state == "warn"
    assert check_replicas(only(stream("EVENTS")), clustered=False) == []
    assert check_replicas(only(None), clustered=True) == []


@pytest.mark.parametrize(
    ("ahead", "within", "state", "text"),
    [
        (0.0001, 0.0002, "ok", "agree to within 0.3 ms"),
        (-0.49, 0.0, "ok", "agree to within 490.0 ms"),
        (0.6, 0.05, "warn", "0.600 s ahead of NATS, accurate to 50.0 ms"),
        (0.6, 0.15, "ok", "agree to within 750.0 ms"),
        (-5.2, 0.1, "error", "5.200 s behind NATS"),
        (5.2, 0.3, "warn", "5.200 s ahead of NATS"),
        (90.0, 0.001, "error", "90.000 s ahead of NATS"),
    ],
)
def test_a_clock_difference_within_the_network_error_is_ignored(
    ahead: float, within: float, state: str, text: str
) -> None:
    """A clock difference counts only if it exceeds the measurement error of the network."""
    one = clock_finding(Skew(ahead, within))
    assert (one.state, text in one.text) == (state, True), one
