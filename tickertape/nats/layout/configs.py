"""Configurations of the streams, as the contract requires them."""

from typing import Any, Final

from tickertape.contracts.events import STATE_SUBJECTS, STREAM_SUBJECTS
from tickertape.names import Names
from tickertape.nats.stream_differences import HEALTH_SUBJECT
from tickertape.nats.stream_sizes import DEFAULT_SIZES

_SECOND: Final = 1_000_000_000

HISTORY_SUBJECTS: Final = ("gateway.status.>", "gateway.recovery.>")
"""Subjects of the stream HISTORY."""


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

    def source(*subjects: str) -> dict[str, Any]:
        # Identity transforms: a source has either one filter or several transforms.
        transforms = [{"src": names.subject(subject), "dest": names.subject(subject)} for subject in subjects]
        return {"name": names.stream("EVENTS"), "subject_transforms": transforms}

    def states(key: str, *subjects: str) -> dict[str, Any]:
        # Copies remain when EVENTS expires or purges the originals, so the state of a quiet gateway is kept.
        return {
            "name": names.stream(key),
            **last_per_subject,
            "max_bytes": sizes[key],
            "sources": [source(*subjects)],
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
    history: dict[str, Any] = {
        "name": names.stream("HISTORY"),
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": 400 * 24 * 3600 * _SECOND,
        "max_bytes": sizes["HISTORY"],
        "compression": "s2",
        "allow_direct": True,
        # One source for each: NATS copies several subjects of one source four times as slowly.
        "sources": [source(subject) for subject in HISTORY_SUBJECTS],
    }
    # HISTORY comes last: where it has no room, the others have theirs.
    return [*([watchdog] if has_schedules else []), events, health, latest, checkpoints, rejected, history]
