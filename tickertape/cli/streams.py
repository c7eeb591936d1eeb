"""``tickertape streams``: show, create or update the streams; rejected events; backups; purge states."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import Field, model_validator

from tickertape.cli.backup import run_backup, run_restore
from tickertape.config.model import Positional
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection
from tickertape.contracts.subjects import SubjectError, check_pattern, find_subject_error
from tickertape.errors import exit_code
from tickertape.nats import connection
from tickertape.nats.jetstream_api import request
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.provisioning import connect_or_report
from tickertape.nats.settings import NatsSettings
from tickertape.nats.stream_sizes import format_size, parse_sizes
from tickertape.nats.streams import (
    Names,
    StreamsError,
    apply,
    differences,
    server_version,
    stream_configs,
    stream_info,
)
from tickertape.process.console import print_json, print_line, print_notice
from tickertape.relay.audit.audit_stream import STREAM as AUDIT
from tickertape.relay.audit.audit_stream import apply_audit, audit_config, audit_differences
from tickertape.relay.ingest import stream_reader
from tickertape.text import mib

PROGRAM: Final = "streams"
STATE_STREAMS: Final = {"gateway.status.": "LATEST", "system.health.": "HEALTH"}
"""Streams of states, by the first tokens of their subjects."""


class StreamsSettings(NatsSettings):
    """Settings of ``tickertape streams``."""

    section: ClassVar[str] = "streams"
    only_options: ClassVar[frozenset[str]] = frozenset({"states", "yes"})

    action: Positional[Literal["show", "apply", "rejected", "audit", "backup", "restore", "purge"]] = "show"
    """Show the streams, create or update them, list rejected events, list audit records, back the streams
    up, restore a backup, or purge states."""
    folder: Positional[Path | None] = None
    """backup, restore: folder of the backup; for a new one it must be empty or not exist."""
    states: str = ""
    """purge: states to delete, as a pattern of their subjects, such as system.health.app.> or
    gateway.status.fix.>; restart the relays afterwards."""
    yes: bool = False
    """restore: delete the existing streams without asking."""
    replicas: Annotated[int, Field(ge=1, le=5)] | None = None
    """apply, restore: replicas of each stream in a cluster; by default existing streams keep theirs, new
    ones get 1, and restored ones have those of the backup."""
    max_bytes: list[str] = Field(
        [],
        description="apply, restore: maximum size of a stream, such as EVENTS=256MiB; separate several with "
        "commas, or repeat the option. Overrides --streams-max-bytes. Shrinking a stream deletes its oldest "
        "messages",
    )
    audit: bool = False
    """show, apply: include the stream AUDIT, in which relays with --audit store records."""
    replay: Annotated[int, Field(ge=1)] | None = None
    """rejected: publish the event with this sequence again, after the contract was corrected."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        # Parses the sizes, so that an error in them is a usage error.
        self.names()
        if self.action in ("backup", "restore") and self.folder is None:
            raise ValueError(f"{self.action} requires a folder: tickertape streams {self.action} DIR")
        if self.action not in ("backup", "restore") and self.folder is not None:
            raise ValueError(f"{self.action} takes no folder; remove {str(self.folder)!r}")
        if (self.action == "purge") != bool(self.states):
            raise ValueError("purge requires the states: tickertape streams purge --states PATTERN")
        if self.states and _state_stream(self.states) is None:
            raise ValueError(
                f"{self.states!r} is no pattern of states; it begins with gateway.status. or system.health."
            )
        return self

    def names(self) -> Names:
        """Return names and sizes of the deployment; ``max_bytes`` overrides ``streams_max_bytes``."""
        names = super().names()
        return Names(names.prefix, {**names.sizes, **parse_sizes(",".join(self.max_bytes))})


async def run(settings: StreamsSettings) -> int:
    """Run the command.

    Returns:
        0; 77 if NATS denies a permission; 1 if it is unreachable or rejects the request, if ``show`` finds a
        difference that violates the contract, if an event cannot be replayed, or if a backup cannot be made
        or restored; 128 plus the number of the signal that interrupts a backup or a restore.
    """
    names = settings.names()
    client = await connect_or_report(PROGRAM, settings)
    if client is None:
        return 1
    try:
        if settings.action == "apply":
            changes = await apply(client, names, settings.replicas)
            if settings.audit:
                changes += await apply_audit(client, names, settings.replicas)
            for line in changes or ["all streams match the contract"]:
                print_line(line)
            return 0
        if settings.folder is not None:
            if settings.action == "backup":
                return await run_backup(client, names, settings.folder)
            return await run_restore(client, names, settings.folder, settings.replicas, settings.yes)
        if settings.action == "purge":
            return await _purge(client, names, settings.states)
        if settings.action == "audit":
            return await _audit(client, names)
        if settings.action == "rejected":
            return await _rejected(client, names, settings.replay)
        return await _show(client, names, audit=settings.audit)
    except StreamsError as error:
        print_notice(PROGRAM, str(error))
        return exit_code(error)
    finally:
        await connection.close(client)


async def _show(client: Client, names: Names, *, audit: bool) -> int:
    configs = stream_configs(names, server_version(client)) + ([audit_config(names)] if audit else [])
    for config in configs:
        existing = await stream_info(client, config["name"])
        if existing is None:
            print_line(f"{config['name']:<12} missing")
            continue
        state = existing["state"]
        print_line(
            f"{config['name']:<12} {state['messages']:>9} messages  {mib(state['bytes'], 1):>12}"
            f" of {format_size(existing['config']['max_bytes'])}  {state['first_seq']}..{state['last_seq']}"
            f"{_replicas(existing)}"
        )
    found = await differences(client, names)
    if audit:
        found += await audit_differences(client, names)
    for difference in found:
        suffix = "" if difference.is_breaking or difference.problem else " (allowed)"
        print_line(f"{difference}{suffix}")
    return 1 if any(difference.is_breaking for difference in found) else 0


def _replicas(stream: dict[str, Any]) -> str:
    """Return the leader and the state of the replicas of a stream; nothing if it is not replicated."""
    cluster = stream.get("cluster") or {}
    followers = cluster.get("replicas") or []
    if not followers:
        return ""
    current = 1 + sum(bool(follower.get("current")) for follower in followers)
    return f"  {current} of {1 + len(followers)} replicas current, leader {cluster.get('leader') or 'none'}"


def _state_stream(pattern: str) -> str | None:
    """Return the stream that holds the states of a pattern; None if the pattern is not one of states."""
    try:
        check_pattern(pattern)
    except SubjectError:
        return None
    return next((stream for prefix, stream in STATE_STREAMS.items() if pattern.startswith(prefix)), None)


async def _purge(client: Client, names: Names, pattern: str) -> int:
    """Delete states from snapshots, and their events, which would bring them back when a relay starts."""
    for stream in (_state_stream(pattern), "EVENTS"):
        assert stream is not None
        reply = await request(
            client, f"STREAM.PURGE.{names.stream(stream)}", {"filter": names.subject(pattern)}
        )
        if "purged" not in reply:
            raise StreamsError(
                f"the states are not purged from {names.stream(stream)}: {reply.get('error')}",
                "check the stream with 'tickertape streams show'",
            )
        print_line(f"{names.stream(stream)}: {reply['purged']} messages purged")
    return 0


async def _audit(client: Client, names: Names) -> int:
    stream = names.stream(AUDIT)
    if await stream_info(client, stream) is None:
        print_notice(
            PROGRAM, f"stream {stream} does not exist; create it with 'tickertape streams apply --audit'"
        )
        return 1
    async for batch in stream_reader.read(client, stream, 1):
        for delivery in batch:
            print_json(_one_line(delivery.data))
    return 0


def _one_line(data: bytes) -> bytes:
    try:
        return orjson.dumps(orjson.loads(data))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        # A program that may write records may write anything, such as arrays too deep for the encoder.
        return orjson.dumps({"unreadable": data.decode(errors="replace")})


async def _rejected(client: Client, names: Names, replay_seq: int | None) -> int:
    found: Delivery | None = None
    async for batch in stream_reader.read(client, names.stream("REJECTED"), 1):
        for delivery in batch:
            headers = delivery.headers or {}
            seq, reason = headers.get("Tickertape-Sequence", "-"), headers.get("Tickertape-Reason", "-")
            if replay_seq is None:
                print_line(f"{seq:>9}  {_subject(delivery, names)}  {reason}")
            elif seq == str(replay_seq):
                found = delivery
    return 0 if replay_seq is None else await _replay(client, names, replay_seq, found)


async def _replay(client: Client, names: Names, seq: int, found: Delivery | None) -> int:
    """Publish a rejected event again, and print the result in one line."""
    if found is None:
        rejected = names.stream("REJECTED")
        print_notice(
            PROGRAM,
            f"event {seq} is not in stream {rejected}; list its events with 'tickertape streams rejected'",
        )
        return 1
    if (obstacle := _replay_obstacle(seq, found, names)) is not None:
        print_notice(PROGRAM, obstacle)
        return 1
    subject = _subject(found, names)
    # The message id deduplicates repeated replays within the duplicate window.
    headers = {"Nats-Msg-Id": f"replay-{(found.headers or {}).get('Nats-Msg-Id', seq)}"}
    try:
        ack = await client.jetstream().publish(names.subject(subject), found.data, headers=headers)
    except (NatsError, TimeoutError) as error:
        print_notice(
            PROGRAM,
            f"event {seq} was not published: {str(error) or 'no acknowledgement'}",
        )
        return exit_code(error)
    print_line(f"event {seq} on {subject} was published as event {ack.seq}")
    return 0


def _replay_obstacle(seq: int, dead_letter: Delivery, names: Names) -> str | None:
    """Return why a dead letter cannot be replayed; None if it can."""
    headers, subject = dead_letter.headers or {}, _subject(dead_letter, names)
    if "Tickertape-Raw-Subject" in headers or find_subject_error(subject) is not None:
        return f"event {seq} cannot be replayed: its subject is invalid ({subject}); choose another"
    if "Tickertape-Size" in headers or "Tickertape-Body" in headers:
        return f"event {seq} cannot be replayed: its body is incomplete; publish it from its source"
    event = decode(subject, dead_letter.data)
    if isinstance(event, Rejection):
        return (
            f"event {seq} cannot be replayed: it still violates the contract ({event}); correct its producer"
        )
    return None


def _subject(dead_letter: Delivery, names: Names) -> str:
    """Return the subject of the original event; an invalid subject is encoded as in the dead letter."""
    full_subject = (dead_letter.headers or {}).get("Tickertape-Subject", dead_letter.subject)
    return names.strip_prefix(full_subject).removeprefix("rejected.")
