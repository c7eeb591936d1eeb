"""The required stream configuration, and which deviations count."""

from typing import Any

import pytest
from tickertape.contracts.events import STREAM_SUBJECTS

from tickertape.nats.streams import (
    Difference,
    Names,
    StreamsError,
    compare,
    epoch_of,
    missing_features,
    stream_configs,
)


def _by_name(prefix: str = "", version: tuple[int, int] = (2, 12)) -> dict[str, dict[str, Any]]:
    return {stream["name"]: stream for stream in stream_configs(Names(prefix), version)}


def test_names_without_a_prefix() -> None:
    """Without a prefix, subjects and streams have the names of the contract."""
    names = Names()
    assert names.subject("log.info.a") == names.strip_prefix("log.info.a") == "log.info.a"
    assert names.stream("EVENTS") == "EVENTS"


def test_names_with_a_prefix() -> None:
    """A prefix precedes every subject in NATS and follows every stream name; clients never see it."""
    names = Names("prod.eu")
    assert names.subject("log.info.a") == "prod.eu.log.info.a"
    assert names.strip_prefix("prod.eu.log.info.a") == "log.info.a"
    assert names.stream("EVENTS") == "EVENTS_prod_eu"


@pytest.mark.parametrize("prefix", ["a.*", ">", "a.", ".a", "a b", "a..b", "*"])
def test_a_bad_prefix_is_rejected(prefix: str) -> None:
    """A prefix must be a plain subject."""
    with pytest.raises(ValueError, match=r"wildcard|token"):
        Names(prefix)


def test_the_streams() -> None:
    """The streams are listed in an order in which each can be created after its sources."""
    streams = _by_name()
    assert list(streams) == ["WATCHDOG", "EVENTS", "HEALTH", "LATEST", "CHECKPOINTS", "REJECTED", "HISTORY"]
    seen: set[str] = set()
    for name, stream in streams.items():
        assert {source["name"] for source in stream.get("sources", [])} <= seen
        assert stream["max_bytes"] > 0
        seen.add(name)


def test_a_producer_cannot_forge_or_erase() -> None:
    """EVENTS allows neither schedules nor rollups, and no other stream captures clients' subjects."""
    streams = _by_name()
    assert streams["EVENTS"]["allow_rollup_hdrs"] is False
    assert streams["EVENTS"]["allow_msg_schedules"] is False
    assert streams["EVENTS"]["subjects"] == [*STREAM_SUBJECTS, "checkpoint.>"]
    assert [name for name, stream in streams.items() if stream.get("allow_msg_schedules")] == ["WATCHDOG"]
    assert "subjects" not in streams["LATEST"]
    assert "subjects" not in streams["HEALTH"]
    assert "subjects" not in streams["HISTORY"]
    assert "subjects" not in streams["CHECKPOINTS"]


def test_every_subject_and_source_has_the_prefix() -> None:
    """Two deployments on one server share no subject and no source."""
    for stream in stream_configs(Names("prod")):
        assert stream["name"].endswith("_prod")
        assert all(subject.startswith("prod.") for subject in stream.get("subjects", []))
        for source in stream.get("sources", []):
            assert source["name"].endswith("_prod")
            moves = source.get("subject_transforms", [])
            given = [
                source.get("filter_subject", "prod."),
                *(move[end] for move in moves for end in ("src", "dest")),
            ]
            assert all(subject.startswith("prod.") for subject in given)


def test_an_old_server_gets_what_it_knows() -> None:
    """Settings that need a newer server are omitted, and one line says what is missing and what still
    works.
    """
    streams = _by_name(version=(2, 10))
    assert "WATCHDOG" not in streams
    assert {"allow_atomic", "allow_msg_ttl", "sources"}.isdisjoint(streams["EVENTS"])
    assert _by_name(version=(2, 11))["EVENTS"]["allow_msg_ttl"] is True
    (line,) = missing_features((2, 11))
    assert "2.11" in line
    assert "added in 2.12" in line
    assert "feeds, resume and history work" in line
    (line,) = missing_features((2, 12))
    assert "dead man's switch" in line
    assert missing_features((2, 14)) == missing_features((2, 15)) == []


@pytest.mark.parametrize(
    "name", ["WATCHDOG", "EVENTS", "HEALTH", "LATEST", "CHECKPOINTS", "REJECTED", "HISTORY"]
)
def test_defaults_of_the_server_are_no_difference(name: str) -> None:
    """Settings that the contract does not name, and False values that the server omits, are no difference."""
    expected = _by_name()[name]
    found = {key: value for key, value in expected.items() if value is not False}
    found |= {"max_msgs": -1, "num_replicas": 1, "mirror_direct": False, "metadata": {"_nats.ver": "2.15.1"}}
    if "subjects" in found:
        found["subjects"] = found["subjects"][::-1]
    if name in ("LATEST", "HEALTH", "HISTORY"):
        found["sources"] = [
            {
                **source,
                "subject_transforms": source["subject_transforms"][::-1],
                "opt_start_seq": 1,
                "filter_subject": "",
            }
            for source in found["sources"][::-1]
        ]
    assert compare(expected, found) == []


@pytest.mark.parametrize(
    ("name", "setting", "value", "breaks"),
    [
        ("EVENTS", "max_bytes", -1, False),
        ("EVENTS", "compression", "none", False),
        ("EVENTS", "storage", "memory", True),
        ("EVENTS", "retention", "workqueue", True),
        ("EVENTS", "subjects", ["gateway.>"], True),
        ("EVENTS", "subjects", None, True),
        ("EVENTS", "sources", None, True),
        ("EVENTS", "allow_rollup_hdrs", True, True),
        ("EVENTS", "allow_direct", None, True),
        ("LATEST", "sources", [{"name": "OTHER"}], True),
        ("HEALTH", "sources", [{"name": "OTHER"}], True),
        ("HISTORY", "sources", [{"name": "OTHER"}], True),
        ("HISTORY", "allow_direct", None, True),
        ("LATEST", "max_msgs_per_subject", 5, True),
        ("REJECTED", "max_msgs_per_subject", -1, False),
        ("CHECKPOINTS", "sources", [{"name": "EVENTS"}], True),
        ("CHECKPOINTS", "sources", [{"name": "EVENTS", "filter_subject": "log.>"}], True),
    ],
)
def test_a_difference_is_reported(name: str, setting: str, value: object, breaks: bool) -> None:
    """A difference names stream, setting and both values; a different size breaks nothing."""
    expected = _by_name()[name]
    (found,) = compare(expected, {**expected, setting: value})
    assert found == Difference(name, setting, expected[setting], value, breaks)
    size = "1GiB" if setting == "max_bytes" else repr(expected[setting])
    assert str(found) == f"stream {name} has {setting} {value!r}, the contract requires {size}"


@pytest.mark.parametrize(("setting", "expected"), [("max_age", "86400s"), ("duplicate_window", "120s")])
def test_a_different_duration_is_reported_in_seconds(setting: str, expected: str) -> None:
    """JetStream has durations in nanoseconds, which a message shows in seconds."""
    events = _by_name()["EVENTS"]
    (found,) = compare(events, {**events, setting: 1_500_000_000})
    assert not found.is_breaking
    assert str(found) == f"stream EVENTS has {setting} 1.5s, the contract requires {expected}"


@pytest.mark.parametrize(
    ("created", "nanoseconds"),
    [
        ("2025-06-24T10:30:45.123456789Z", 1750761045123456789),
        ("2025-06-24T10:30:45.1Z", 1750761045100000000),
        ("2025-06-24T10:30:45Z", 1750761045000000000),
        ("2025-06-24T18:30:45.123456789+08:00", 1750761045123456789),
        ("2025-06-24T05:30:45.5-05:00", 1750761045500000000),
        ("2025-06-24T18:30:45+08:00", 1750761045000000000),
    ],
)
def test_an_epoch_is_the_creation_time(created: str, nanoseconds: int) -> None:
    """Every relay derives the same epoch from the stream, to the nanosecond, in any time zone."""
    assert int(epoch_of(created), 16) == nanoseconds


def test_an_epoch_fits_a_cursor() -> None:
    """An epoch is lower-case hexadecimal of at most 16 characters, as a cursor requires."""
    assert epoch_of("2025-06-24T10:30:45.123456789Z") == "184bf3e5052cdf15"
    assert len(epoch_of("2250-01-01T00:00:00Z")) <= 16


def test_an_error_is_one_line_with_a_hint() -> None:
    """An error is one line: what happened, to what, and what to do."""
    assert str(StreamsError("stream X is odd", "look at it")) == "stream X is odd; look at it"
