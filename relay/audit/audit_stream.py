"""Stream of audit records, which exists only where an operator has asked for it.

It is separate from all other streams, with its own retention, and no feed reads it.
"""

from typing import Any, Final

from nats.aio.client import Client
from tickertape.contracts.audit import PREFIX

from tickertape.names import Names
from tickertape.nats.jetstream_api import request, stream_error, stream_info
from tickertape.nats.stream_differences import Difference, compare

STREAM: Final = "AUDIT"
_DAY: Final = 24 * 3600 * 1_000_000_000


def audit_config(names: Names) -> dict[str, Any]:
    """Return the configuration of the stream; operators may change its size and its maximum age."""
    return {
        "name": names.stream(STREAM),
        "subjects": [names.subject(f"{PREFIX}.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": 90 * _DAY,
        "max_bytes": 256 * 1024 * 1024,
        # A record whose acknowledgement was lost is published again, with the same id.
        "duplicate_window": 120 * 1_000_000_000,
        "compression": "s2",
        "allow_direct": True,
        # Those who may write records must not be able to delete any.
        "allow_rollup_hdrs": False,
        "allow_msg_ttl": False,
        "deny_delete": True,
        "deny_purge": True,
    }


async def apply_audit(nc: Client, names: Names, replicas: int | None = None) -> list[str]:
    """Create the stream, or correct what differs from the contract, except its size and maximum age.

    Args:
        nc: a client whose user may manage streams.
        names: names of the deployment.
        replicas: number of replicas in a cluster; None keeps those of an existing stream.

    Returns:
        One line per change.

    Raises:
        StreamsError: the server rejects a change.
    """
    config = audit_config(names)
    if replicas is not None:
        config["num_replicas"] = replicas
    name, existing = config["name"], await stream_info(nc, config["name"])
    if existing is None:
        await _create(nc, config)
        return [f"stream {name} created"]
    config |= {setting: existing["config"][setting] for setting in ("max_age", "max_bytes")}
    found = compare(config, existing["config"])
    if found:
        response = await request(nc, f"STREAM.UPDATE.{name}", {**existing["config"], **config})
        if "error" in response:
            raise stream_error(name, response)
    return [difference.change_line() for difference in found]


async def ensure_audit(nc: Client, names: Names) -> None:
    """Create the stream if it does not exist.

    Raises:
        StreamsError: the server rejects it, or this user may not create it.
    """
    config = audit_config(names)
    if await stream_info(nc, config["name"]) is None:
        await _create(nc, config)


async def _create(nc: Client, config: dict[str, Any]) -> None:
    response = await request(nc, f"STREAM.CREATE.{config['name']}", config)
    if "error" in response:
        raise stream_error(config["name"], response)


async def audit_differences(nc: Client, names: Names) -> list[Difference]:
    """Compare the stream with the contract, if it exists."""
    config = audit_config(names)
    existing = await stream_info(nc, config["name"])
    return [] if existing is None else compare(config, existing["config"])
