"""Small installations: stream sizes, and the errors when a reservation does not fit."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client

from tests.support.clients.feed_client import follow, jetstream, line, publish
from tests.support.clients.feed_client import run as work
from tests.support.programs.relay_process import Relay, run
from tests.support.servers.nats_server import NatsServer, limited_account
from tickertape.names import Names
from tickertape.nats import connection, streams
from tickertape.nats.streams import StreamsError
from tickertape.text import MIB

SMALL: Final = (
    "WATCHDOG=4MiB,EVENTS=16MiB,LATEST=8MiB,HEALTH=4MiB,CHECKPOINTS=4MiB,REJECTED=4MiB,HISTORY=4MiB"
)


def server(folder: Path, limits: str = "") -> NatsServer:
    """Run a server with 64 MB for all streams, or with an account with given limits."""
    if not limits:
        return NatsServer(folder, max_file="64MB")
    return NatsServer(folder, config=limited_account(limits))


def ask(url: str, question: Callable[[Client], Awaitable[None]]) -> None:
    """Send a request to a server."""

    async def part() -> None:
        client = await connection.connect_once(url, name="test")
        try:
            await question(client)
        finally:
            await connection.close(client)

    asyncio.run(part())


@pytest.mark.parametrize(
    ("limits", "output"),
    [
        (
            "",
            r"stream EVENTS reserves 1GiB of the 2GiB of all streams, and the server has less"
            r" storage left \(.*\): insufficient storage.*max_file_store of the server",
        ),
        (
            "max_file: 512MB",
            r"stream EVENTS reserves 1GiB of the 2GiB of all streams, and the account has 512MiB, of"
            r" which 64MiB are reserved: insufficient storage.*max_file of the account",
        ),
        (
            "max_file: 5GB, store_max_stream_bytes: 100MB",
            r"stream EVENTS reserves 1GiB of .* and the account allows at most 100MiB per stream.*"
            r"store_max_stream_bytes of the account",
        ),
    ],
)
def test_a_stream_that_does_not_fit_is_reported_with_sizes(limits: str, output: str, tmp_path: Path) -> None:
    """A relay and ``streams apply`` report the requested and the available size, and both options."""
    with server(tmp_path, limits) as nats:
        for command in (("serve", "--port", "0", "--ops-port", "0"), ("streams", "apply")):
            done = run(*command, "--nats-url", nats.url)
            assert done.returncode == 1
            text = done.stdout + done.stderr

            assert re.search(output, text), text
            assert "--max-bytes EVENTS=256MiB" in text
            assert "TICKERTAPE_STREAMS_MAX_BYTES=EVENTS=256MiB" in text
            assert "same subjects" not in text


def test_a_limit_on_streams_is_reported(tmp_path: Path) -> None:
    """An account's limit on the number of streams is reported with the number needed."""

    async def question(client: Client) -> None:
        with pytest.raises(StreamsError, match=r"limited to 2 streams, but 7 are needed .*raise max_streams"):
            await streams.provision(client, Names())

    with server(tmp_path, "max_file: 5GB, max_streams: 2") as nats:
        ask(nats.url, question)


def test_a_relay_runs_with_the_sizes_that_it_is_given(tmp_path: Path) -> None:
    """With smaller sizes a relay runs on a server that cannot hold the contract's."""

    async def part(relay: Relay) -> None:
        async with follow(relay.ws_url) as client, jetstream(relay.nats_url) as js:
            await publish(js, line("small"))
            assert await client.texts(1) == ["small"]

    with server(tmp_path) as nats, Relay(nats.url, TICKERTAPE_STREAMS_MAX_BYTES=SMALL) as relay:
        work(part(relay))
        shown = run("streams", "show", "--nats-url", nats.url, TICKERTAPE_STREAMS_MAX_BYTES=SMALL)
        assert (shown.returncode, "(allowed)" in shown.stdout) == (0, False)
        assert relay.stop() == 0


def test_the_embedded_nats_accepts_the_sizes(tmp_path: Path) -> None:
    """A relay with an embedded NATS server accepts the sizes as well."""
    options = ("--data-dir", str(tmp_path), "--nats-port", "0", "--streams-max-bytes", SMALL)
    with Relay(None, *options) as relay:

        async def question(client: Client) -> None:
            there = await streams.stream_info(client, "EVENTS")
            assert there is not None
            assert there["config"]["max_bytes"] == 16 * MIB

        ask(relay.nats_url, question)
        assert relay.stop() == 0


def test_only_apply_alters_a_size(nats_server: NatsServer) -> None:
    """A program reports different sizes; only ``apply`` changes those that are named."""
    url = nats_server.url

    async def found(client: Client) -> dict[str, int]:
        every = [await streams.stream_info(client, name) for name in ("EVENTS", "REJECTED")]
        return {one["config"]["name"]: one["config"]["max_bytes"] for one in every if one}

    async def first(client: Client) -> None:
        await streams.provision(client, Names("", {"EVENTS": 256 * MIB, "REJECTED": 8 * MIB}))
        differs = Names("", {"EVENTS": 128 * MIB})
        notes = (await streams.provision(client, differs)).notes
        assert notes == [
            "stream EVENTS has max_bytes 256MiB, the settings require 128MiB; left unchanged; "
            "'tickertape streams apply' changes it",
            "stream REJECTED has max_bytes 8MiB, the contract requires 64MiB; left unchanged",
        ]
        assert await found(client) == {"EVENTS": 256 * MIB, "REJECTED": 8 * MIB}

    async def last(client: Client) -> None:
        assert await found(client) == {"EVENTS": 96 * MIB, "REJECTED": 16 * MIB}

    ask(url, first)
    nothing = run("streams", "apply", "--nats-url", url)
    assert nothing.stdout == "all streams match the contract\n"
    line = ("--max-bytes", "EVENTS=96MiB,LATEST=32MiB", "--max-bytes", "REJECTED=16M")
    done = run("streams", "apply", "--nats-url", url, *line, TICKERTAPE_STREAMS_MAX_BYTES="EVENTS=1GiB")
    assert done.stdout.splitlines() == [
        "stream EVENTS: max_bytes 256MiB -> 96MiB",
        "stream LATEST: max_bytes 256MiB -> 32MiB",
        "stream REJECTED: max_bytes 8MiB -> 16MiB",
    ]
    ask(url, last)
    wrong = run("streams", "apply", "--nats-url", url, "--max-bytes", "EVENT=1GiB")
    assert wrong.returncode != 0
    assert "names no stream" in wrong.stderr
