"""What the streams must be: creates the absent, compares those that are there, alters on request only."""

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
from tickertape.nats.stream_differences import Difference, compare
from tickertape.nats.stream_sizes import DEFAULT_SIZES, creation_error

_SECOND: Final = 1_000_000_000
_FRACTION: Final = re.compile(r"\.(\d+)", re.ASCII)
_ERROR_NAME_IN_USE: Final = 10058


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What provisioning did and found.

    Attributes:
        created: streams that were absent.
        notes: lines for the operator: what is sized differently, what this server is too old for.
    """

    created: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def stream_configs(names: Names, version: tuple[int, int] = (2, 12)) -> list[dict[str, Any]]:
    """JetStream configurations of the streams, in the order in which they can be created.

    Args:
        names: the deployment.
        version: major and minor of the server; what it is too old for is left out.
    """
    size = {**DEFAULT_SIZES, **names.sizes}
    schedules = version >= (2, 12)
    watchdog: dict[str, Any] = {
        "name": names.stream("WATCHDOG"),
        "subjects": [names.subject("watchdog.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": size["WATCHDOG"],
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
    }
    events: dict[str, Any] = {
        "name": names.stream("EVENTS"),
        "subjects": [names.subject(subject) for subject in (*STREAM_SUBJECTS, "checkpoint.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": 24 * 3600 * _SECOND,
        "max_bytes": size["EVENTS"],
        "duplicate_window": 120 * _SECOND,
        "compression": "s2",
        "allow_direct": True,
        "allow_rollup_hdrs": False,
        "allow_msg_schedules": False,
    }
    if version >= (2, 11):
        events["allow_msg_ttl"] = True
    if schedules:
        events["allow_atomic"] = True
        events["sources"] = [
            {
                "name": names.stream("WATCHDOG"),
                "subject_transforms": [
                    {"src": names.subject("watchdog.fired.>"), "dest": names.subject("gateway.status.>")}
                ],
            }
        ]
    newest: dict[str, Any] = {
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "allow_direct": True,
    }
    latest: dict[str, Any] = {
        "name": names.stream("LATEST"),
        **newest,
        "max_bytes": size["LATEST"],
        "sources": [
            {
                "name": names.stream("EVENTS"),
                "subject_transforms": [
                    {"src": names.subject(subject), "dest": names.subject(subject)}
                    for subject in STATE_SUBJECTS
                ],
            }
        ],
    }
    checkpoints: dict[str, Any] = {
        "name": names.stream("CHECKPOINTS"),
        **newest,
        "max_bytes": size["CHECKPOINTS"],
        "sources": [{"name": names.stream("EVENTS"), "filter_subject": names.subject("checkpoint.>")}],
    }
    rejected: dict[str, Any] = {
        "name": names.stream("REJECTED"),
        "subjects": [names.subject("rejected.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_bytes": size["REJECTED"],
        "duplicate_window": 120 * _SECOND,
        "allow_direct": True,
    }
    return [*([watchdog] if schedules else []), events, latest, checkpoints, rejected]


def epoch_of(created: str) -> str:
    """Epoch of a cursor: the stream's creation time in nanoseconds, as lower-case hex."""
    return f"{_nanoseconds(created):x}"


def _nanoseconds(created: str) -> int:
    # Go writes as many digits of the fraction as there are, none for a whole second; datetime keeps six.
    fraction = _FRACTION.search(created)
    seconds = int(datetime.fromisoformat(created).replace(microsecond=0).timestamp())
    return seconds * _SECOND + (int(fraction[1].ljust(9, "0")[:9]) if fraction else 0)


def missing_features(version: tuple[int, int]) -> list[str]:
    """Lines that say what a server lacks, which version has it, and what still works."""
    if version >= (2, 12):
        return []
    return [
        f"NATS {version[0]}.{version[1]} has no message schedules and no atomic batches (2.12 has both): "
        "feeds, resume and history work; the monitors' dead man's switch does not, and shipping is at least "
        "once beyond the duplicate window"
    ]


async def provision(nc: Client, names: Names) -> Provisioned:
    """Create the streams that are absent, and check those that are there.

    Raises:
        StreamsAbsent: one is absent, and this user may not create it.
        StreamsError: JetStream is off, or a stream is there with settings that break the contract.
    """
    version = server_version(nc)
    result = Provisioned(notes=missing_features(version))
    events: dict[str, Any] | None = None
    every = _ExpectedStreams(names, version)
    for own, wanted in every:
        name = wanted["name"]
        there = await stream_info(nc, name)
        if there and name == names.stream("LATEST") and events and _is_older(there, events):
            result.notes.append(await _delete_latest(nc, name, names))
            there = None
        if there is None:
            there = await _create(nc, own, wanted, every)
            result.created.append(name)
        if name == names.stream("EVENTS"):
            events = there
        for difference in compare(wanted, there["config"], sized=own in names.sizes):
            if difference.is_breaking:
                raise StreamsError(
                    str(difference),
                    "run 'tickertape streams apply', or use another TICKERTAPE_SUBJECT_PREFIX",
                )
            alter = "; 'tickertape streams apply' alters that" if difference.configured else ""
            result.notes.append(f"{difference}; kept as it is{alter}")
    return result


async def differences(nc: Client, names: Names) -> list[Difference]:
    """Compare all streams with the contract and the settings; an absent one differs in ``name``."""
    found = []
    every = _ExpectedStreams(names, server_version(nc))
    for own, wanted in every:
        there = await stream_info(nc, wanted["name"])
        if there is None:
            found.append(Difference(wanted["name"], "name", wanted["name"], None, True))
        else:
            found.extend(compare(wanted, there["config"], sized=own in names.sizes))
    return found


async def apply(nc: Client, names: Names, replicas: int | None = None) -> list[str]:
    """Create or alter the streams to be as the contract has them.

    Args:
        nc: a connection of a user who may.
        names: the deployment; a stream that is there and has no size in it keeps the one it has.
        replicas: servers of a cluster that hold each stream; None leaves what is there, new ones have one.

    Returns:
        A line for each change.

    Raises:
        StreamsError: the server refuses a change, such as another storage.
    """
    changes = []
    events: dict[str, Any] | None = None
    every = _ExpectedStreams(names, server_version(nc), replicas)
    for own, wanted in every:
        name = wanted["name"]
        there = await stream_info(nc, name)
        if there and own not in names.sizes:
            wanted["max_bytes"] = there["config"]["max_bytes"]
        if there and name == names.stream("LATEST") and events and _is_older(there, events):
            changes.append(await _delete_latest(nc, name, names))
            await _create(nc, own, wanted, every)
            continue
        if there is None:
            there = await _create(nc, own, wanted, every)
            changes.append(f"stream {name} created")
        if name == names.stream("EVENTS"):
            events = there
        found = compare(wanted, there["config"])
        if found:
            answer = await request(nc, f"STREAM.UPDATE.{name}", {**there["config"], **wanted})
            if "error" in answer:
                raise await creation_error(nc, own, wanted, every.all, answer)
            changes.extend(difference.change_line() for difference in found)
    return changes


class _ExpectedStreams:
    """The configurations of all streams, with their names in the contract."""

    def __init__(self, names: Names, version: tuple[int, int], replicas: int | None = None) -> None:
        self.all = stream_configs(names, version)
        self._names = {names.stream(own): own for own in DEFAULT_SIZES}
        if replicas is not None:
            for wanted in self.all:
                wanted["num_replicas"] = replicas

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((self._names[wanted["name"]], wanted) for wanted in self.all)


async def _create(nc: Client, own: str, wanted: dict[str, Any], every: _ExpectedStreams) -> dict[str, Any]:
    name = wanted["name"]
    try:
        answer = await request(nc, f"STREAM.CREATE.{name}", wanted)
    except PermissionDenied:
        raise StreamMissing(name) from None
    if answer.get("error", {}).get("err_code") == _ERROR_NAME_IN_USE:
        # Another process of ours was first; whether it is as wanted is compared next.
        answer = await stream_info(nc, name) or answer
    if "error" in answer:
        raise await creation_error(nc, own, wanted, every.all, answer)
    return answer


async def _delete_latest(nc: Client, latest: str, names: Names) -> str:
    """Delete a LATEST whose copies name sequences of an EVENTS that is gone; return a line that says so."""
    events = names.stream("EVENTS")
    try:
        await request(nc, f"STREAM.DELETE.{latest}")
    except PermissionDenied:
        raise StreamsError(
            f"stream {latest} is older than {events}, and this NATS user may not make it again",
            "run 'tickertape streams apply' as a user who may",
            transient=True,
        ) from None
    return f"stream {latest} was older than {events} and was made again"


def _is_older(stream: dict[str, Any], than: dict[str, Any]) -> bool:
    return _nanoseconds(stream["created"]) < _nanoseconds(than["created"])


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
