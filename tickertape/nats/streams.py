"""Provisioning of the streams: create missing streams, check existing ones, change them only on request."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from nats.aio.client import Client

from tickertape.names import Names
from tickertape.nats.jetstream_api import (
    PermissionDenied,
    StreamMissing,
    StreamsError,
    missing_features,
    request,
    server_version,
    stream_info,
)
from tickertape.nats.layout.configs import stream_configs
from tickertape.nats.layout.epochs import epoch_of, is_older
from tickertape.nats.layout.history import attach_history, mark_history
from tickertape.nats.stream_differences import (
    Difference,
    compare,
    compare_layout,
    is_combined,
    prepare_layout,
    remove_health,
)
from tickertape.nats.stream_sizes import DEFAULT_SIZES, creation_error

_ERROR_NAME_IN_USE: Final = 10058
_COPIES: Final = ("HEALTH", "LATEST")
"""Streams whose messages name their sequences in EVENTS. HISTORY has the same form, but is never deleted."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Result of provisioning.

    Attributes:
        created: names of the streams that were created.
        notes: messages for the operator: sizes that differ, features that the server is too old for.
    """

    created: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
        if existing and key in _COPIES and events and is_older(existing, events):
            result.notes.append(await _delete_copy(nc, name, names))
            existing = None
        if existing is None:
            if key == "HEALTH" and events and await _is_combined(nc, names, events):
                continue  # LATEST still has the states of components; ``apply`` moves them
            if key == "HISTORY":
                mark_history(config, None, events)
            try:
                existing = await _create(nc, key, config, streams)
            except StreamsError as error:
                if key != "HISTORY" or (error.transient and not isinstance(error, StreamMissing)):
                    raise
                # An earlier deployment may lack the room, and another user may have to create it.
                result.notes.append(f"gateways have no history: {error}")
                continue
            result.created.append(name)
        if name == names.stream("EVENTS"):
            events = existing
        if key == "HISTORY" and mark_history(config, existing, events):
            result.notes.append(await attach_history(nc, existing["config"], config))
            continue
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
            if key == "HISTORY":
                mark_history(config, existing, events)
            found.extend(compare_layout(key, config, existing["config"], names))
        elif key != "HEALTH" or not events or not await _is_combined(nc, names, events):
            found.append(Difference(config["name"], "name", config["name"], None, True))
    return found


async def apply(nc: Client, names: Names, replicas: int | None = None) -> list[str]:
    """Create or update the streams so that they match the contract.

    Args:
        nc: a client whose user may manage streams.
        names: names and sizes of the deployment; existing streams without a size in it keep their size. They
            always keep their ``max_age``: a shorter one would delete events.
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
        if existing and "max_age" in config:
            config["max_age"] = existing["config"]["max_age"]
        if existing and key in _COPIES and events and is_older(existing, events):
            changes.append(await _delete_copy(nc, name, names))
            await _create(nc, key, config, streams)
            continue
        if key == "HISTORY":
            mark_history(config, existing, events)
        if existing is None:
            existing = await _create(nc, key, config, streams)
            changes.append(f"stream {name} created")
        if name == names.stream("EVENTS"):
            events = existing
        found = compare_layout(key, config, existing["config"], names, ignore_sizes=True)
        if key == "LATEST" and any(difference.problem for difference in found):
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
    return latest is not None and not is_older(latest, events) and is_combined(latest["config"], names)


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
