"""``tickertape streams``: show the streams beside the contract, make them so, list what was rejected."""

from typing import Annotated, Literal, Self

from nats.aio.client import Client
from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg, NoDecode, SettingsConfigDict

from contracts import connect
from contracts.connect import NatsSettings
from contracts.stream_sizes import format_size, parse_sizes
from contracts.streams import Names, StreamsError, apply, configurations, differences, info, server_version
from relay import replay
from relay.check import reach


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class StreamsSettings(NatsSettings):
    """``show`` the streams, ``apply`` what the contract wants, or list the ``rejected`` events."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

    action: CliPositionalArg[Literal["show", "apply", "rejected"]] = "show"
    replicas: Annotated[int, Field(ge=1, le=5)] | None = None
    """apply: servers of a cluster that hold each stream; else what is there stays, and new ones have one."""
    max_bytes: Annotated[list[str], NoDecode, BeforeValidator(_listed)] = Field(
        [],
        description="apply: largest size of a stream, as in EVENTS=256MiB; several with commas, or the "
        "option again. Counts before --streams-max-bytes. A stream that shrinks lets its oldest messages go",
    )

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
        0; 1 when NATS is not there or refuses, or when ``show`` found a difference.
    """
    names = settings.names()
    client = await reach(settings.nats_url, settings.access())
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
            return await _rejected(client, names)
        return await _show(client, names)
    except StreamsError as error:
        print(f"tickertape streams: {error}")
        return 1
    finally:
        await connect.close(client)


async def _show(client: Client, names: Names) -> int:
    for wanted in configurations(names, server_version(client)):
        there = await info(client, wanted["name"])
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
        print(f"{difference}{'' if difference.breaks else ' (a matter of size)'}")
    return 1 if any(difference.breaks for difference in found) else 0


async def _rejected(client: Client, names: Names) -> int:
    async for batch in replay.read(client, names.stream("REJECTED"), 1):
        for delivery in batch:
            headers = delivery.headers or {}
            subject = names.bare(delivery.subject).removeprefix("rejected.")
            seq, reason = headers.get("Tickertape-Sequence", "-"), headers.get("Tickertape-Reason", "-")
            print(f"{seq:>9}  {subject}  {reason}")
    return 0
