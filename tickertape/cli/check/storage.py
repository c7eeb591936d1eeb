"""Checks of stream storage and replicas, based on information from JetStream."""

from typing import Any, Final

from tickertape.cli.check.finding import Finding
from tickertape.errors import OperatorError
from tickertape.names import Names
from tickertape.nats.storage.health import MARGIN
from tickertape.nats.storage.problems import QUOTA_HINT
from tickertape.nats.storage.watch import StoreWatch
from tickertape.nats.streams import stream_configs
from tickertape.text import mib

FULL: Final = 0.95
"""Fraction of its maximum size from which a stream is full: there is no room for another large message."""


def check_storage(
    account: dict[str, Any], streams: dict[str, dict[str, Any] | None], names: Names
) -> Finding:
    """Compare the storage limit of the account with the maximum sizes of the streams.

    Args:
        account: reply to ``$JS.API.INFO``.
        streams: information of each stream by its name in the contract; None for missing streams.
        names: names and sizes of the deployment.
    """
    max_bytes = {config["name"]: config["max_bytes"] for config in stream_configs(names)}
    replica_count = _replica_count(streams["EVENTS"])
    tier = (account.get("tiers") or {}).get(f"R{replica_count}")
    limits = (tier or account).get("limits") or {}
    limit, used = limits.get("max_storage", -1), (tier or account).get("storage", 0)
    stored, growth, unlimited = 0, 0, []
    for name, stream in streams.items():
        maximum = max_bytes[names.stream(name)] if stream is None else stream["config"].get("max_bytes", -1)
        current = 0 if stream is None else stream["state"]["bytes"]
        stored += current
        if maximum < 0:
            unlimited.append(names.stream(name))
        else:
            # Each replica counts against the account limit, except in tiers, which count streams once.
            growth += max(0, maximum - current) * (1 if tier or stream is None else _replica_count(stream))
    if limit < 0:
        text = f"no account limit; the streams use {mib(stored)} and may grow by {mib(growth)}"
    elif limit - used < growth:
        return Finding.error(
            "storage",
            f"the account has {mib(max(0, limit - used))} of {mib(limit)} left, but the streams may "
            f"grow by {mib(growth)}; NATS would reject events",
            "raise the storage limit of the account, or reduce max_bytes of the streams",
        )
    elif limit - used < MARGIN:
        return Finding.error(
            "storage",
            f"the account has used its storage quota of {mib(limit)}; NATS rejects events",
            QUOTA_HINT,
        )
    else:
        text = f"{mib(limit - used)} of {mib(limit)} left; the streams may grow by {mib(growth)}"
    if unlimited:
        return Finding.warn(
            "storage",
            f"{text}; without a limit: {', '.join(unlimited)}",
            "set max_bytes, so that old events are deleted before the disk is full",
        )
    return Finding.ok("storage", text)


def check_states(streams: dict[str, dict[str, Any] | None]) -> list[Finding]:
    """Report streams that delete the states of gateways or components, because they are full.

    Args:
        streams: as in ``check_storage``.
    """
    found = []
    for stream in filter(None, (streams["LATEST"], streams["HEALTH"])):
        name, maximum = stream["config"]["name"], stream["config"].get("max_bytes", -1)
        if 0 < maximum * FULL <= stream["state"]["bytes"]:
            found.append(
                Finding.warn(
                    "states",
                    f"stream {name} is full ({mib(maximum)}): it deletes the least recently changed states",
                    "purge the subjects that a producer should not use, or raise max_bytes of the stream",
                )
            )
    return found


async def check_store(watch: StoreWatch | None) -> Finding:
    """Check whether NATS can store events, which only its monitoring port shows.

    Args:
        watch: watch of its monitoring ports; None if there are none.
    """
    if watch is None:
        return Finding.warn(
            "nats_store",
            "whether nats-server can write its store was not checked",
            "set --nats-monitoring-url to its monitoring port",
        )
    try:
        problem = await watch.read()
    except OperatorError as error:
        return Finding.from_error("nats_store", error)
    except OSError as error:
        return Finding.error("nats_store", f"the monitoring port cannot be read: {error}", "check --nats-ca")
    if problem is not None:
        return Finding.error("nats_store", problem.message, problem.hint)
    return Finding.ok("nats_store", "nats-server can store events")


def check_replicas(streams: dict[str, dict[str, Any] | None], *, clustered: bool) -> list[Finding]:
    """Report replicas that are behind or offline, and streams of a cluster without replication.

    Args:
        streams: as in ``check_storage``.
        clustered: whether the server belongs to a cluster.
    """
    found = []
    for stream in filter(None, streams.values()):
        name = stream["config"]["name"]
        for peer in (stream.get("cluster") or {}).get("replicas") or []:
            if peer.get("offline") or not peer.get("current"):
                state = "offline" if peer.get("offline") else "behind"
                found.append(
                    Finding.error(
                        "streams",
                        f"stream {name}: the replica on {peer.get('name')} is {state}",
                        "check that server",
                    )
                )
    events = streams["EVENTS"]
    if clustered and events is not None and _replica_count(events) == 1:
        found.append(
            Finding.warn(
                "streams",
                f"stream {events['config']['name']} has one replica: no feed while its server is offline",
                "run 'tickertape streams apply --replicas 3'",
            )
        )
    return found


def _replica_count(stream: dict[str, Any] | None) -> int:
    return 1 if stream is None else int(stream["config"].get("num_replicas", 1))
