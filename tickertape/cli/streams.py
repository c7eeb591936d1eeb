"""``tickertape streams``: show, compare and apply the streams; list and replay what was rejected."""

from typing import Annotated, Final, Literal, Self

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg, NoDecode, SettingsConfigDict

from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection
from tickertape.contracts.subjects import find_subject_error
from tickertape.nats import connection
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
from tickertape.process.console import print_notice
from tickertape.relay.ingest import stream_reader
from tickertape.text import printable

PROGRAM: Final = "streams"


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class StreamsSettings(NatsSettings):
    """``show`` the streams, ``apply`` what the contract wants, or list the ``rejected`` events."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

    action: CliPositionalArg[Literal["show", "apply", "rejected"]] = "show"
    """Show the streams, apply what the contract wants, or list rejected events."""
    replicas: Annotated[int, Field(ge=1, le=5)] | None = None
    """apply: servers of a cluster that hold each stream; else what is there stays, and new ones have one."""
    max_bytes: Annotated[list[str], NoDecode, BeforeValidator(_as_list)] = Field(
        [],
        description="apply: largest size of a stream, as in EVENTS=256MiB; several with commas, or the "
        "option again. Counts before --streams-max-bytes. A stream that shrinks lets its oldest messages go",
    )
    replay: Annotated[int, Field(ge=1)] | None = None
    """rejected: publish the event with this sequence again, once the contract allows it."""

    @model_validator(mode="after")
    def _sized(self) -> Self:
        self.names()
        return self

    def names(self) -> Names:
        """The deployment; ``max_bytes`` counts before the settings that all programs have."""
        names = super().names()
        return Names(names.prefix, {**names.sizes, **parse_sizes(",".join(self.max_bytes))})


async def run(settings: StreamsSettings) -> int:
    """Do it.

    Returns:
        0; 1 when NATS is not there or refuses, when ``show`` found a difference, or when an event cannot be
        replayed.
    """
    names = settings.names()
    client = await connect_or_report(PROGRAM, settings)
    if client is None:
        return 1
    try:
        if settings.action == "apply":
            for line in await apply(client, names, settings.replicas) or [
                "all streams are as the contract has them"
            ]:
                print(line)
            return 0
        if settings.action == "rejected":
            return await _rejected(client, names, settings.replay)
        return await _show(client, names)
    except StreamsError as error:
        print_notice(PROGRAM, str(error))
        return 1
    finally:
        await connection.close(client)


async def _show(client: Client, names: Names) -> int:
    for wanted in stream_configs(names, server_version(client)):
        there = await stream_info(client, wanted["name"])
        if there is None:
            print(f"{wanted['name']:<12} absent")
            continue
        state = there["state"]
        print(
            f"{wanted['name']:<12} {state['messages']:>9} messages  {state['bytes'] / 2**20:>8.1f} MiB"
            f" of {format_size(there['config']['max_bytes'])}  {state['first_seq']}..{state['last_seq']}"
        )
    found = await differences(client, names)
    for difference in found:
        print(f"{difference}{'' if difference.is_breaking else ' (a matter of size)'}")
    return 1 if any(difference.is_breaking for difference in found) else 0


async def _rejected(client: Client, names: Names, again: int | None) -> int:
    found: Delivery | None = None
    async for batch in stream_reader.read(client, names.stream("REJECTED"), 1):
        for delivery in batch:
            headers = delivery.headers or {}
            seq, reason = headers.get("Tickertape-Sequence", "-"), headers.get("Tickertape-Reason", "-")
            if again is None:
                print(printable(f"{seq:>9}  {_subject(delivery, names)}  {reason}"))
            elif seq == str(again):
                found = delivery
    return 0 if again is None else await _replay(client, names, again, found)


async def _replay(client: Client, names: Names, seq: int, found: Delivery | None) -> int:
    """Publish a rejected event again, and say in one line what came of it."""
    if found is None:
        rejected = names.stream("REJECTED")
        print_notice(
            PROGRAM, f"event {seq} is not in {rejected}; 'tickertape streams rejected' lists what is"
        )
        return 1
    if (obstacle := _replay_obstacle(seq, found, names)) is not None:
        print_notice(PROGRAM, printable(obstacle))
        return 1
    subject = _subject(found, names)
    # Twice within the duplicate window is once.
    headers = {"Nats-Msg-Id": f"replay-{(found.headers or {}).get('Nats-Msg-Id', seq)}"}
    try:
        ack = await client.jetstream().publish(names.subject(subject), found.data, headers=headers)
    except (NatsError, TimeoutError) as error:
        print_notice(
            PROGRAM, printable(f"event {seq} was not published: {error}; look at this user's permissions")
        )
        return 1
    print(printable(f"event {seq} on {subject} is event {ack.seq} now"))
    return 0


def _replay_obstacle(seq: int, letter: Delivery, names: Names) -> str | None:
    """Say why a dead letter cannot be replayed; None when it can."""
    headers, subject = letter.headers or {}, _subject(letter, names)
    if "Tickertape-Raw-Subject" in headers or find_subject_error(subject) is not None:
        return f"event {seq} cannot be replayed: its subject is illegal ({subject}); publish it on another"
    if "Tickertape-Size" in headers or "Tickertape-Body" in headers:
        return f"event {seq} cannot be replayed: not all of its body was kept; publish it from its source"
    event = decode(subject, letter.data)
    if isinstance(event, Rejection):
        return f"event {seq} cannot be replayed: it still breaks the contract ({event}); correct its producer"
    return None


def _subject(letter: Delivery, names: Names) -> str:
    """The subject of the original event; for an illegal one, as the dead letter spells it."""
    whole = (letter.headers or {}).get("Tickertape-Subject", letter.subject)
    return names.strip_prefix(whole).removeprefix("rejected.")
