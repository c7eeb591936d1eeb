"""Differences between a stream on the server and its configuration, and the move from an earlier layout.

LATEST also held the health of components in earlier versions; HEALTH has it now. Programs accept both, and
only ``streams apply`` moves it. No state of a gateway is lost at any moment: LATEST keeps its messages, and
its new source continues where the old one has stopped. The states of components are copied from EVENTS; those
that it no longer retains are not carried over.
"""

import asyncio
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from nats.aio.client import Client

from tickertape.contracts.events import SystemHealth
from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.errors import StreamsError, UnfinishedRestore
from tickertape.nats.jetstream_api import request, stream_error, stream_info
from tickertape.nats.stream_sizes import format_size
from tickertape.nats.wire.headers import server_header

HEALTH_SUBJECT: Final = f"{SystemHealth.SUBJECT.prefix}.>"
"""Subjects of the stream HEALTH."""

CATCH_UP_TIMEOUT: Final = 60.0
"""Seconds to wait until HEALTH has copied the states of components from EVENTS."""

POLL_INTERVAL: Final = 0.1
"""Seconds between two looks at its progress."""

MAX_SILENCE: Final = 2.5
"""Seconds without a message or heartbeat after which a source counts as stalled; NATS sends one a second."""

_MARK: Final = re.compile(r"\.\{\{splitfromleft\(1,(\d+)\)\}\}", re.ASCII)
"""Mark in the destination of a source of HISTORY: a function without an effect, since no token is that long.

NATS continues a source after the last sequence that it has copied with the same transform. After EVENTS was
created again, its sequences start again, and HISTORY would receive nothing until they exceed the old ones.
With another mark, it receives all of them.
"""

RESTORE_MARK: Final = "tickertape.restore"
"""Key in the metadata of a stream that is not restored completely."""

_TUNABLE: Final = frozenset({"max_age", "max_bytes", "duplicate_window", "compression", "num_replicas"})
"""Settings that an operator may change without violating the contract."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Setting of a stream that differs from the contract.

    Attributes:
        stream: name of the stream in NATS.
        setting: key in the stream's configuration.
        expected: value in the contract or the operator's settings.
        actual: value on the server; None if the stream does not exist.
        is_breaking: whether the difference violates the contract, as opposed to a different size.
        configured: whether the expected value is from the operator's settings.
        problem: description that replaces the two values; empty for none.
        change: description of the change, with a ``problem``.
    """

    stream: str
    setting: str
    expected: Any
    actual: Any
    is_breaking: bool
    configured: bool = False
    problem: str = ""
    change: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"stream {self.stream} {self.problem}"
        actual, expected = (self._format(value) for value in (self.actual, self.expected))
        source = "the settings require" if self.configured else "the contract requires"
        return f"stream {self.stream} has {self.setting} {actual}, {source} {expected}"

    def change_line(self) -> str:
        """Return a line that describes the change of the setting."""
        if self.change:
            return f"stream {self.stream}: {self.change}"
        actual, expected = (self._format(value) for value in (self.actual, self.expected))
        return f"stream {self.stream}: {self.setting} {actual} -> {expected}"

    def _format(self, value: Any) -> str:
        if self.setting == "max_bytes" and isinstance(value, int):
            return format_size(value)
        if self.setting in ("max_age", "duplicate_window") and isinstance(value, int):
            return f"{value / 1e9:g}s"  # nanoseconds
        return repr(value)


def compare(expected: dict[str, Any], actual: dict[str, Any], *, sized: bool = False) -> list[Difference]:
    """List the settings of a stream that differ; settings that only the server has are ignored.

    Args:
        expected: configuration in the contract.
        actual: configuration on the server.
        sized: whether the operator's settings specify the size of the stream.
    """
    differences = []
    for setting, value in expected.items():
        actual_value = actual.get(setting)
        if actual_value is None and value is False:
            continue  # the server omits settings that are false
        # The order of subjects and sources has no meaning.
        if setting == "subjects" and actual_value is not None and sorted(actual_value) == sorted(value):
            continue
        if setting == "sources":
            if _sources(actual_value or []) == _sources(value):
                continue
        elif actual_value == value:
            continue
        configured = sized and setting == "max_bytes"
        # More than one message per subject is a size; one is the contract.
        tunable = setting in _TUNABLE or (setting == "max_msgs_per_subject" and value > 1)
        differences.append(
            Difference(expected["name"], setting, value, actual_value, not tunable, configured)
        )
    return differences


def _sources(sources: list[dict[str, Any]]) -> list[Any]:
    # Only these fields are compared, because the server adds others.
    return sorted(
        (
            source["name"],
            source.get("filter_subject", ""),
            sorted(map(_unmarked, source.get("subject_transforms") or [])),
        )
        for source in sources
    )


def is_combined(config: dict[str, Any], names: Names) -> bool:
    """Return whether a configuration of LATEST is that of an earlier version."""
    return any(
        transform["src"] == names.subject(HEALTH_SUBJECT)
        for source in config.get("sources") or []
        for transform in source.get("subject_transforms") or []
    )


def read_mark(config: dict[str, Any]) -> str:
    """Return the mark of the EVENTS that a configuration of HISTORY copies from; empty if it has none."""
    for source in config.get("sources") or []:
        for transform in source.get("subject_transforms") or []:
            if found := _MARK.search(transform.get("dest", "")):
                return found[1]
    return ""


def set_mark(config: dict[str, Any], mark: str) -> None:
    """Mark the EVENTS that a configuration of HISTORY copies from."""
    config["sources"] = [
        {
            **source,
            "subject_transforms": [_marked(*_unmarked(one), mark) for one in source["subject_transforms"]],
        }
        for source in config["sources"]
    ]


def _marked(src: str, dest: str, mark: str) -> dict[str, str]:
    function = f".{{{{splitfromleft(1,{mark})}}}}.>"
    return {"src": src.removesuffix(".>") + ".*.>", "dest": dest.removesuffix(".>") + function}


def _unmarked(transform: dict[str, str]) -> tuple[str, str]:
    src, dest = transform["src"], transform.get("dest", "")
    return (src.replace(".*.>", ".>"), _MARK.sub("", dest)) if _MARK.search(dest) else (src, dest)


def compare_layout(
    key: str, expected: dict[str, Any], actual: dict[str, Any], names: Names, *, ignore_sizes: bool = False
) -> list[Difference]:
    """List the settings of a stream that differ; the layout of an earlier version is not breaking.

    Args:
        key: name of the stream in the contract.
        expected: configuration in the contract.
        actual: configuration on the server.
        names: names and sizes of the deployment.
        ignore_sizes: whether the expected size is not from the operator's settings in any case.

    Raises:
        UnfinishedRestore: the stream is being restored.
    """
    check_restored(actual)
    sized = key in names.sizes and not ignore_sizes
    found = compare(expected, actual, sized=sized)
    if key == "HISTORY" and read_mark(expected) != read_mark(actual):
        problem, change = "copies from an earlier EVENTS", "copies from the current EVENTS"
        value = actual.get("sources")
        found.append(
            Difference(expected["name"], "sources", expected["sources"], value, False, False, problem, change)
        )
    if key != "LATEST" or not is_combined(actual, names):
        return found
    problem = "also holds system.health, which can evict gateways from it"
    change = f"system.health moved to stream {names.stream('HEALTH')}"
    return [
        replace(one, is_breaking=False, problem=problem, change=change) if one.setting == "sources" else one
        for one in found
    ]


async def prepare_layout(nc: Client, names: Names, config: dict[str, Any]) -> None:
    """Wait for the copies in HEALTH, and set where the new source of LATEST starts.

    Args:
        nc: connected client.
        names: names of the deployment.
        config: new configuration of LATEST, which is changed.

    Raises:
        StreamsError: HEALTH does not catch up with EVENTS.
    """
    latest, health = names.stream("LATEST"), names.stream("HEALTH")
    if not await catch_up(nc, health, CATCH_UP_TIMEOUT):
        raise StreamsError(
            f"stream {health} has not copied the states of components within {CATCH_UP_TIMEOUT:.0f} s",
            "nothing was moved; run 'tickertape streams apply' again",
        )
    # The old source has copied everything up to its last message. A new source would start at the beginning
    # of EVENTS and replace each state by its predecessors, until it has caught up.
    last = await direct_get.get_message(nc, latest, last_by_subj=">")
    origin = [] if last is None else server_header(last.header_block, "Nats-Stream-Source").split(" ")
    if len(origin) > 1 and origin[1].isdigit():
        (source,) = config["sources"]
        config["sources"] = [{**source, "opt_start_seq": int(origin[1]) + 1}]


async def remove_health(nc: Client, names: Names) -> list[str]:
    """Remove the states of components from LATEST, which would take space from gateways; return a line."""
    latest, pattern = names.stream("LATEST"), names.subject(HEALTH_SUBJECT)
    response = await request(nc, f"STREAM.INFO.{latest}", {"subjects_filter": pattern})
    if "error" in response or not response["state"].get("subjects"):
        return []
    response = await request(nc, f"STREAM.PURGE.{latest}", {"filter": pattern})
    if "error" in response:
        raise stream_error(latest, response)
    return [f"stream {latest}: {response.get('purged', 0)} states of components removed; HEALTH has them"]


def check_restored(config: dict[str, Any]) -> None:
    """Raise ``UnfinishedRestore`` if a stream is being restored from a backup, or that was interrupted."""
    if RESTORE_MARK in (config.get("metadata") or {}):
        raise UnfinishedRestore(config["name"])


async def catch_up(nc: Client, stream: str, seconds: float) -> bool:
    """Wait until a stream has copied all messages from its sources; return whether it has in time.

    Args:
        nc: a connected client.
        stream: name of the stream in NATS.
        seconds: maximum time to wait.
    """
    try:
        async with asyncio.timeout(seconds):
            while not _has_caught_up(await stream_info(nc, stream)):  # noqa: ASYNC110 - NATS has no event for this
                await asyncio.sleep(POLL_INTERVAL)
    except TimeoutError:
        return False
    return True


def _has_caught_up(info: dict[str, Any] | None) -> bool:
    sources = (info or {}).get("sources") or []
    # ``active`` is the age of the last message or heartbeat, negative until the first one. The lag is that of
    # this time: a source that has stalled still reports the one before.
    return bool(sources) and all(
        source.get("lag", 0) == 0 and 0 <= source.get("active", -1) <= MAX_SILENCE * 1e9 for source in sources
    )
