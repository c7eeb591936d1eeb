"""Messages that a NATS server stores although they violate rules below the contract: subjects, header blocks.

None may end a connection, delay the following ones, or leave the relay as anything but text.
"""

import asyncio
import base64
import os
import re
import time
from collections.abc import Iterator
from typing import Final
from urllib.request import urlopen

import orjson
import pytest
from tickertape.contracts.events import Status
from tickertape.contracts.messages import Snapshot

from tests.integration.stream.test_rejected import filed, rejected_total
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow, jetstream, line, publish, run, status
from tests.support.clients.poison import (
    BLOCKS,
    SUBJECT_OF_EVENT,
    SUBJECTS,
    Message,
    RawPublisher,
    event,
    mixed,
)
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as command
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.streams import StreamsSettings
from tickertape.cli.streams import run as streams

COUNT: Final = 100_000 if os.environ.get("CHAOS") == "full" else 10_000
STATUS: Final = b"gateway.status.ctp."
REPLIES: Final = (
    b"",
    b"\xff",
    b"\x0b.\x00",
    b"$JS.ACK",
    b"$JS.ACK\xff.E.c.1.1.1.1.1",
)
"""Reply subjects of other clients; a server itself rejects those under ``$JS.ACK.``."""

REFUSALS: Final = {
    8: "still violates the contract",
    9: "its body is incomplete",
    10: "its body is incomplete",
    11: "subject is invalid",
    12: "is not in stream REJECTED",
}
"""Reason why a dead letter cannot be replayed, by its sequence."""


@pytest.fixture
def raw(nats_server: NatsServer) -> Iterator[RawPublisher]:
    """Connect a client without validation."""
    with RawPublisher(nats_server.url) as publisher:
        yield publisher


def reconnects(relay: Relay) -> list[str]:
    """Return the lines of the relay's log about reconnections and recreated consumers."""
    return [text for text in relay.log if re.search("again|recreating|cannot be parsed|unreachable", text)]


def test_every_valid_event_between_random_ones_arrives_once_and_in_order(
    nats_server: NatsServer, raw_seed: int
) -> None:
    """Among random subjects and header blocks every valid event arrives once, in order, over a single
    connection.
    """
    messages, valid = mixed(COUNT, raw_seed)

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url, mode="complete") as feed:
            with RawPublisher(nats_server.url) as raw:
                publishing = asyncio.create_task(asyncio.to_thread(raw.publish, *messages))
                texts = await feed.texts(valid)
                await publishing
            assert texts == [str(number) for number in range(valid)]
        async with follow(relay.ws_url, mode="complete", since="earliest") as again:
            assert await again.texts(valid) == texts

    with Relay(nats_server.url) as relay:
        run(check(relay), timeout=600)
        eventually(
            lambda: sum(rejected_total(relay).values()) == COUNT - valid, "all others are counted as rejected"
        )
        assert not reconnects(relay)


def test_an_illegal_subject_is_a_dead_letter(nats_server: NatsServer, raw: RawPublisher) -> None:
    """Subject, header block and body can be recovered byte for byte, and the next event arrives."""
    block = b"NATS/1.0\r\nA: \xff\x00\r\n"
    subjects = [b"log.info." + token for token in SUBJECTS]
    bad = event(-1) + b"\xff"

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            for number, subject in enumerate(subjects):
                raw.publish(Message(subject, bad, block), Message(SUBJECT_OF_EVENT, event(number)))
            assert await feed.texts(len(subjects)) == [str(number) for number in range(len(subjects))]
            for subject, (position, body, headers) in zip(
                subjects, await filed(js, len(subjects)), strict=True
            ):
                assert position.startswith("rejected.log.info")
                assert position.isascii()
                assert position.isprintable()
                assert body == bad
                assert base64.b64decode(headers["Tickertape-Raw-Subject"]) == subject
                assert base64.b64decode(headers["Tickertape-Raw-Headers"]) == block
                assert headers["Tickertape-Reason"].startswith("bad_subject: ")
        assert rejected_total(relay) == {"bad_subject": len(subjects)}

    with Relay(nats_server.url) as relay:
        run(check(relay))
        assert not reconnects(relay)
        listed = command("streams", "rejected", "--nats-url", nats_server.url)
        assert listed.returncode == 0
        assert "rejected" not in listed.stderr
        lines = listed.stdout.splitlines()
        assert len(lines) == len(subjects)
        assert lines[0].split()[:2] == ["1", "log.info.=FF"]
        assert "is not UTF-8" in lines[0]
        rejected = command("streams", "rejected", "--replay", "1", "--nats-url", nats_server.url)
        assert rejected.returncode == 1
        assert len(rejected.stderr.splitlines()) == 1
        assert "subject is invalid" in rejected.stderr


@pytest.mark.parametrize("workers", [None, "2"])
def test_a_malformed_header_block_does_not_reject_an_event(
    nats_server: NatsServer, raw: RawPublisher, workers: str | None
) -> None:
    """An event with a malformed header block is delivered live and from the stream, and a state is in the
    snapshot.
    """
    named = {f"g{number}": block for number, block in enumerate(BLOCKS)}

    async def live(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            for name, block in named.items():
                raw.publish(Message(STATUS + name.encode(), status(name, Status.DEGRADED).encode(), block))
            events = await feed.events(len(named))
            assert [one["gateway_id"] for one in events] == list(named)

    async def fresh(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            states = [item.event for one in only(feed.messages, Snapshot) for item in one.events]
            assert sorted(state["gateway_id"] for state in states) == sorted(named)

    options = () if workers is None else ("--workers", workers)
    with Relay(nats_server.url, *options) as relay:
        run(live(relay))
        assert relay.stop() == 0
        relay.start()
        run(fresh(relay))
        assert rejected_total(relay) == {}


def test_a_fresh_relay_is_ready_among_poisoned_states(nats_server: NatsServer, raw: RawPublisher) -> None:
    """Malformed messages in LATEST and at both ends of EVENTS delay neither the startup nor later events."""
    poison = [Message(STATUS + token, b"{}", block) for token in SUBJECTS for block in BLOCKS[:3]]

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            (state,) = [item.event for one in only(feed.messages, Snapshot) for item in one.events]
            assert state["gateway_id"] == "good"
            raw.publish(*poison, Message(SUBJECT_OF_EVENT, event(0)))
            assert await feed.texts(1) == ["0"]
        with urlopen(f"{relay.url}/events?since=earliest") as page:
            found = orjson.loads(page.read())
        assert [item["subject"] for item in found["events"]] == [
            "gateway.status.ctp.good",
            SUBJECT_OF_EVENT.decode(),
        ]

    async def prepare(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            raw.publish(*poison)
            await publish(js, status("good"))
            raw.publish(*poison)
            async with asyncio.timeout(30):
                while (await js.stream_info("LATEST")).state.messages <= len(SUBJECTS):
                    await asyncio.sleep(0.02)

    with Relay(nats_server.url) as relay:
        run(prepare(relay))
        assert relay.stop() == 0
        relay.start()
        run(check(relay))
        assert urlopen(f"{relay.ops_url}/readyz").status == 200
        assert not reconnects(relay)
        checked = command("check", "--nats-url", nats_server.url, "--port", "0", "--ops-port", "0")
        assert "Traceback" not in checked.stderr


def test_messages_of_others_to_an_inbox_are_harmless(nats_server: NatsServer, raw: RawPublisher) -> None:
    """Any reply subject and any bytes that others publish to the relay's inboxes are harmless."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            deliver = (await js.consumers_info("EVENTS"))[0].config.deliver_subject
            assert deliver is not None
            inboxes = [deliver.encode(), deliver.rpartition(".")[0].encode() + b".\xff"]
            async with follow(relay.ws_url) as feed:
                for inbox in inboxes:
                    for reply in REPLIES:
                        strange = [Message(inbox, b"\xff", block) for block in (None, *BLOCKS)]
                        raw.send(*strange, reply=reply)
                await publish(js, line("after"))
                assert await feed.texts(1) == ["after"]

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_a_rejected_event_is_replayed_only_when_it_can_be(
    nats_server: NatsServer, raw: RawPublisher, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line reports the result of a replay, whatever the stream contains."""

    def letter(seq: int, subject: bytes, data: bytes, more: bytes = b"") -> Message:
        block = b"NATS/1.0\r\nTickertape-Sequence: %d\r\nNats-Msg-Id: e-%d\r\n%b\r\n" % (seq, seq, more)
        return Message(b"rejected." + subject, data, block)

    def output(seq: int | None) -> list[str]:
        """Return the output of the command; it exits with 1 only if it rejects the replay."""
        settings = StreamsSettings(action="rejected", nats_url=nats_server.url, replay=seq)
        code = run(streams(settings))
        printed = capsys.readouterr()
        assert code == (1 if printed.err else 0)
        assert bool(printed.out) != bool(printed.err)
        return [*printed.out.splitlines(), *printed.err.splitlines()]

    with Relay(nats_server.url):
        raw.publish(
            letter(7, SUBJECT_OF_EVENT, event(0)),
            letter(8, SUBJECT_OF_EVENT, b"{}"),
            letter(9, SUBJECT_OF_EVENT, event(0), b"Tickertape-Size: 999999\r\n"),
            letter(10, SUBJECT_OF_EVENT, b"", b"Tickertape-Body: unavailable\r\n"),
            letter(11, b"\xff\x1b[2J", event(0)),
            Message(b"rejected.\xfe", b"\xff", b"NATS/1.0"),
        )
        listed = output(None)
        assert len(listed) == 6
        assert all(text.isprintable() for text in listed)
        for _ in range(2):
            assert output(7) == [f"event 7 on {SUBJECT_OF_EVENT.decode()} was published as event 1"]
        for seq, why in REFUSALS.items():
            (text,) = output(seq)
            assert why in text


@pytest.fixture
def raw_seed(request: pytest.FixtureRequest) -> int:
    """Return a different seed in each run, shown when a test fails; ``POISON_SEED`` repeats one."""
    seed = int(os.environ.get("POISON_SEED", time.time_ns() % 2**32))
    print(f"POISON_SEED={seed}")
    return seed
