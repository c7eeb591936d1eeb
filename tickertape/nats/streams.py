"""Provisioning of the streams: create missing streams, check existing ones, change them only on request."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client

from tickertape.contracts.events import STATE_SUBJECTS, STREAM_SUBJECTS
from tickertape.names import Names
from tickertape.nats.jetstream_api import (
    PermissionDenied,
    StreamMissing,
    StreamsError,
    request,
    server_version,
    stream_info,
)
from tickertape.nats.stream_differences import (
    HEALTH_SUBJECT,
    Difference,
    compare,
    compare_layout,
    is_combined,
    prepare_layout,
    remove_health,
)
from tickertape.nats.stream_sizes import DEFAULT_SIZES, creation_error

_SECOND: Final = 1_000_000_000
_FRACTION: Final = re.compile(r"\.(\d+)", re.ASCII)
_ERROR_NAME_IN_USE: Final = 10058
_COPIES: Final = ("HEALTH", "LATEST")
"""Streams whose messages name their sequences in EVENTS."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Result of provisioning.

    Attributes:
        created: names of the streams that were created.
        notes: messages for the operator: sizes that differ, features that the server is too old for.
    """

    created: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def stream_configs(names: Names, version: tuple[int, int] = (2, 12)) -> list[dict[str, Any]]:
    """Return the JetStream configurations of the streams in the order in which they can be created.

    Args:
        names: names and sizes of the deployment.
        version: major and minor version of the server; settings that it does not support are omitted.
    """
    sizes = {**DEFAULT_SIZES, **names.sizes}
    has_schedules = version >= (2, 12)
    # A stream of its own, because ``allow_msg_schedules`` also allows rollups and purges: in EVENTS, a
    # producer of log events could forge the status of a gateway or delete all events.
    watchdog: dict[str, Any] = {
        "name": names.stream("WATCHDOG"),
        "subjects": [names.subject("watchdog.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        # Arming a switch again replaces its previous schedule.
        "max_msgs_per_subject": 1,
        "max_bytes": sizes["WATCHDOG"],
        "allow_direct": True,
        # A disarmed switch is overwritten with a message that expires.
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
    }
    events: dict[str, Any] = {
        "name": names.stream("EVENTS"),
        # Checkpoints share the stream with events, because an atomic batch covers one stream only.
        "subjects": [names.subject(subject) for subject in (*STREAM_SUBJECTS, "checkpoint.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": 24 * 3600 * _SECOND,
        "max_bytes": sizes["EVENTS"],
        "duplicate_window": 120 * _SECOND,
        "compression": "s2",
        "allow_direct": True,
        # Producers must not be able to purge subjects or to schedule messages.
        "allow_rollup_hdrs": False,
        "allow_msg_schedules": False,
    }
    if version >= (2, 11):
        events["allow_msg_ttl"] = True
    if has_schedules:
        # The shipper publishes events and its checkpoint in one atomic batch.
        events["allow_atomic"] = True
        # A switch that fires becomes a status event of its gateway.
        events["sources"] = [
            {
                "name": names.stream("WATCHDOG"),
                "subject_transforms": [
                    {"src": names.subject("watchdog.fired.>"), "dest": names.subject("gateway.status.>")}
                ],
            }
        ]
    last_per_subject: dict[str, Any] = {
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "allow_direct": True,
    }

    def states(key: str, *subjects: str) -> dict[str, Any]:
        # Copies remain when EVENTS expires or purges the originals, so the state of a quiet gateway is kept.
        # Identity transforms: a source has either one filter or several transforms.
        transforms = [{"src": names.subject(subject), "dest": names.subject(subject)} for subject in subjects]
        source = {"name": names.stream("EVENTS"), "subject_transforms": transforms}
        return {
            "name": names.stream(key),
            **last_per_subject,
            "max_bytes": sizes[key],
            "sources": [source],
        }

    # Separate streams, because any producer may report its health, and a full stream deletes its oldest
    # messages: a flood of components must not delete gateways.
    health = states("HEALTH", HEALTH_SUBJECT)
    latest = states("LATEST", *(subject for subject in STATE_SUBJECTS if subject != HEALTH_SUBJECT))
    checkpoints: dict[str, Any] = {
        "name": names.stream("CHECKPOINTS"),
        **last_per_subject,
        "max_bytes": sizes["CHECKPOINTS"],
        "sources": [{"name": names.stream("EVENTS"), "filter_subject": names.subject("checkpoint.>")}],
    }
    rejected: dict[str, Any] = {
        "name": names.stream("REJECTED"),
        "subjects": [names.subject("rejected.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_bytes": sizes["REJECTED"],
        # A producer that repeats an invalid event must not delete the dead letters of others.
        "max_msgs_per_subject": 100,
        # All relays publish the same dead letter with the same id; it is stored once.
        "duplicate_window": 120 * _SECOND,
        "allow_direct": True,
    }
    return [*([watchdog] if has_schedules else []), events, health, latest, checkpoints, rejected]


def epoch_of(created: str) -> str:
    """Return the epoch of cursors: the stream's creation time in nanoseconds, as lower-case hex."""
    return f"{_creation_time_ns(created):x}"


def _creation_time_ns(created: str) -> int:
    # Go omits trailing zeros of the fraction, and datetime keeps only six digits.
    fraction = _FRACTION.search(created)
    seconds = int(datetime.fromisoformat(created).replace(microsecond=0).timestamp())
    return seconds * _SECOND + (int(fraction[1].ljust(9, "0")[:9]) if fraction else 0)


def missing_features(version: tuple[int, int]) -> list[str]:
    """Return messages about features that a server lacks: the version required and what still works."""
    if version >= (2, 12):
        return []
    return [
        f"NATS {version[0]}.{version[1]} lacks message schedules and atomic batches (added in 2.12): feeds, "
        "resume and history work, but the dead man's switch of the monitors does not, and shipping is at "
        "least once beyond the duplicate window"
    ]


async def provision(nc: Client, names: Names) -> Provisioned:
    """Create the streams that do not exist, and check the others.

    Raises:
        StreamMissing: a stream does not exist, and this user may not create it.
        StreamsError: JetStream is not available, or a stream violates the contract.
    """
    version = server_version(nc)
    result = Provisioned(notes=missing_features(version))
    events: dict[str, Any] | None = None
    streams = _ExpectedStreams(names, version)
    for key, config in streams:
        name = config["name"]
        existing = await stream_info(nc, name)
        # EVENTS precedes its copies in this loop. If it was recreated, they would keep states of the old one.
        if existing and key in _COPIES and events and _is_older(existing, events):
            result.notes.append(await _delete_copy(nc, name, names))
            existing = None
        if existing is None:
            if key == "HEALTH" and events and await _is_combined(nc, names, events):
                continue  # LATEST still has the states of components; ``apply`` moves them
            existing = await _create(nc, key, config, streams)
            result.created.append(name)
        if name == names.stream("EVENTS"):
            events = existing
        # Only breaking differences are errors: operators may size the streams themselves.
        for difference in compare_layout(key, config, existing["config"], names):
            if difference.is_breaking:
                raise StreamsError(
                    str(difference),
                    "run 'tickertape streams apply', or choose another TICKERTAPE_SUBJECT_PREFIX",
                )
            alterable = difference.configured or difference.problem
            hint = "; 'tickertape streams apply' changes it" if alterable else ""
            result.notes.append(f"{difference}; left unchanged{hint}")
    return result


async def differences(nc: Client, names: Names) -> list[Difference]:
    """Compare all streams with the contract and the settings; a missing stream differs in ``name``."""
    found = []
    events: dict[str, Any] | None = None
    streams = _ExpectedStreams(names, server_version(nc))
    for key, config in streams:
        existing = await stream_info(nc, config["name"])
        if key == "EVENTS":
            events = existing
        if existing is not None:
            found.extend(compare_layout(key, config, existing["config"], names))
        elif key != "HEALTH" or not events or not await _is_combined(nc, names, events):
            found.append(Difference(config["name"], "name", config["name"], None, True))
    return found


async def apply(nc: Client, names: Names, replicas: int | None = None) -> list[str]:
    """Create or update the streams so that they match the contract.

    Args:
        nc: a client whose user may manage streams.
        names: names and sizes of the deployment; existing streams without a size in it keep their size.
        replicas: replicas of each stream in a cluster; None keeps those of existing streams and creates new
            streams with one.

    Returns:
        One line per change.

    Raises:
        StreamsError: the server rejects a change, such as another storage type.
    """
    changes = []
    events: dict[str, Any] | None = None
    streams = _ExpectedStreams(names, server_version(nc), replicas)
    for key, config in streams:
        name = config["name"]
        existing = await stream_info(nc, name)
        if existing and key not in names.sizes:
            config["max_bytes"] = existing["config"]["max_bytes"]
        if existing and key in _COPIES and events and _is_older(existing, events):
            changes.append(await _delete_copy(nc, name, names))
            await _create(nc, key, config, streams)
            continue
        if existing is None:
            existing = await _create(nc, key, config, streams)
            changes.append(f"stream {name} created")
        if name == names.stream("EVENTS"):
            events = existing
        found = compare_layout(key, config, existing["config"], names, ignore_sizes=True)
        if any(difference.problem for difference in found):
            await prepare_layout(nc, names, config)
        if found:
            # Settings that the contract does not name stay as they are.
            response = await request(nc, f"STREAM.UPDATE.{name}", {**existing["config"], **config})
            if "error" in response:
                raise await creation_error(nc, key, config, streams.configs, response)
            changes.extend(difference.change_line() for difference in found)
        if key == "LATEST":
            changes.extend(await remove_health(nc, names))
    return changes


class _ExpectedStreams:
    """Configurations of all streams, with their names in the contract."""

    def __init__(self, names: Names, version: tuple[int, int], replicas: int | None = None) -> None:
        self.configs = stream_configs(names, version)
        self._names = {names.stream(key): key for key in DEFAULT_SIZES}
        if replicas is not None:
            for config in self.configs:
                config["num_replicas"] = replicas

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((self._names[config["name"]], config) for config in self.configs)


async def _create(nc: Client, key: str, config: dict[str, Any], streams: _ExpectedStreams) -> dict[str, Any]:
    name = config["name"]
    try:
        response = await request(nc, f"STREAM.CREATE.{name}", config)
    except PermissionDenied:
        raise StreamMissing(name) from None
    if response.get("error", {}).get("err_code") == _ERROR_NAME_IN_USE:
        # Another process created the stream first; the caller compares its configuration.
        response = await stream_info(nc, name) or response
    if "error" in response:
        raise await creation_error(nc, key, config, streams.configs, response)
    return response


async def _delete_copy(nc: Client, copy: str, names: Names) -> str:
    """Delete a stream that refers to sequences of a deleted EVENTS stream; return a message."""
    events = names.stream("EVENTS")
    try:
        await request(nc, f"STREAM.DELETE.{copy}")
    except PermissionDenied:
        raise StreamsError(
            f"stream {copy} is older than {events}, and this NATS user may not recreate it",
            "run 'tickertape streams apply' as a user with that permission",
            transient=True,
        ) from None
    return f"stream {copy} was older than {events} and was recreated"


async def _is_combined(nc: Client, names: Names, events: dict[str, Any]) -> bool:
    """Return whether there is a LATEST stream of an earlier version, which also has states of components."""
    latest = await stream_info(nc, names.stream("LATEST"))
    # One that is older than EVENTS is recreated in the current layout.
    return latest is not None and not _is_older(latest, events) and is_combined(latest["config"], names)


def _is_older(stream: dict[str, Any], other: dict[str, Any]) -> bool:
    return _creation_time_ns(stream["created"]) < _creation_time_ns(other["created"])


__all__ = [
    "Difference",
    "Names",
    "PermissionDenied",
    "Provisioned",
    "StreamMissing",
    "StreamsError",
    "apply",
    "compare",
    "differences",
    "epoch_of",
    "missing_features",
    "provision",
    "request",
    "server_version",
    "stream_configs",
    "stream_info",
]
