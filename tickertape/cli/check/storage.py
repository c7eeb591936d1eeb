"""How much the streams may still grow, and how many copies of them there are, from JetStream's answers."""

from typing import Any

from tickertape.cli.check.finding import Finding
from tickertape.names import Names
from tickertape.nats.streams import stream_configs

_MIB = 1024 * 1024


def storage(account: dict[str, Any], streams: dict[str, dict[str, Any] | None], names: Names) -> Finding:
    """Compare the account's limit with what the streams may grow to.

    Args:
        account: answer to ``$JS.API.INFO``.
        streams: by their names in the contract, what JetStream says of each; None for one that is absent.
        names: the deployment.
    """
    wanted = {one["name"]: one["max_bytes"] for one in stream_configs(names)}
    copies = _copies(streams["EVENTS"])
    tier = (account.get("tiers") or {}).get(f"R{copies}")
    limits = (tier or account).get("limits") or {}
    limit, used = limits.get("max_storage", -1), (tier or account).get("storage", 0)
    held, grows, endless = 0, 0, []
    for name, stream in streams.items():
        most = wanted[names.stream(name)] if stream is None else stream["config"].get("max_bytes", -1)
        has = 0 if stream is None else stream["state"]["bytes"]
        held += has
        if most < 0:
            endless.append(names.stream(name))
        else:
            # Each copy counts against the account, unless its limits are by number of copies.
            grows += max(0, most - has) * (1 if tier or stream is None else _copies(stream))
    if limit < 0:
        text = f"the account has no limit; the streams hold {_shown(held)} and may grow by {_shown(grows)}"
    elif limit - used < grows:
        return Finding.error(
            "storage",
            f"the account has {_shown(max(0, limit - used))} of {_shown(limit)} left, and the streams may "
            f"grow by {_shown(grows)}: NATS would refuse events",
            "raise the account's storage, or give the streams a smaller max_bytes",
        )
    else:
        text = f"{_shown(limit - used)} of {_shown(limit)} are left; the streams may grow by {_shown(grows)}"
    if endless:
        return Finding.warn(
            "storage",
            f"{text}; without a bound: {', '.join(endless)}",
            "give a max_bytes, so that old events make room before the disk is full",
        )
    return Finding.ok("storage", text)


def replicas(streams: dict[str, dict[str, Any] | None], *, clustered: bool) -> list[Finding]:
    """Name copies that are behind or away, and streams of a cluster that have one copy.

    Args:
        streams: as in ``storage``.
        clustered: whether the server belongs to a cluster.
    """
    found = []
    for stream in filter(None, streams.values()):
        name = stream["config"]["name"]
        for peer in (stream.get("cluster") or {}).get("replicas") or []:
            if peer.get("offline") or not peer.get("current"):
                how = "away" if peer.get("offline") else "behind"
                found.append(
                    Finding.error(
                        "streams",
                        f"stream {name}: its copy on {peer.get('name')} is {how}",
                        "look at that server",
                    )
                )
    events = streams["EVENTS"]
    if clustered and events is not None and _copies(events) == 1:
        found.append(
            Finding.warn(
                "streams",
                f"stream {events['config']['name']} has one copy: no feed while its server is away",
                "give it three with 'tickertape streams apply --replicas 3'",
            )
        )
    return found


def _copies(stream: dict[str, Any] | None) -> int:
    return 1 if stream is None else int(stream["config"].get("num_replicas", 1))


def _shown(size: int) -> str:
    return f"{size / _MIB:,.0f} MiB"
