"""Events that violate the contract are stored, counted, and delay no other event."""

import asyncio
from itertools import pairwise
from urllib.request import urlopen

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clients.feed_client import (
    PATIENCE,
    connection,
    follow,
    jetstream,
    line,
    publish,
    publish_burst,
    run,
)
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

BASE = b'"event_type":"system_log","timestamp":"2025-06-24T10:30:45Z","message":"m","source":"x"'
GOOD = b'{%b,"level":"INFO"}' % BASE

BAD: dict[str, tuple[str, bytes, dict[str, str] | None, str]] = {
    "not JSON": ("log.info.x", b"hello", None, "bad_json"),
    "half of it": ("log.info.x", GOOD[:-1], None, "bad_json"),
    "two of it": ("log.info.x", GOOD + GOOD, None, "bad_json"),
    "a byte order mark": ("log.info.x", b"\xef\xbb\xbf" + GOOD, None, "bad_json"),
    "invalid UTF-8": ("log.info.x", GOOD.replace(b'"m"', b'"\xff"'), None, "bad_json"),
    "a lone surrogate": ("log.info.x", GOOD.replace(b'"m"', b'"\\ud800"'), None, "bad_json"),
    "a raw control character": ("log.info.x", GOOD.replace(b'"m"', b'"\x01"'), None, "bad_json"),
    "NaN": ("log.info.x", GOOD[:-1] + b',"n":NaN}', None, "bad_json"),
    "too deep": ("log.info.x", GOOD[:-1] + b',"n":' + b"[" * 100 + b"]" * 100 + b"}", None, "bad_json"),
    "duplicate keys": ("log.info.x", GOOD[:-1] + b',"level":"ERROR"}', None, "duplicate_key"),
    "duplicate keys deep down": ("log.info.x", GOOD[:-1] + b',"a":[{"k":1,"k":2}]}', None, "duplicate_key"),
    "an array": ("log.info.x", b"[%b]" % GOOD, None, "not_an_object"),
    "no event type": ("log.info.x", b"{}", None, "bad_event_type"),
    "no timestamp": ("log.info.x", b'{"event_type":"system_log"}', None, "bad_timestamp"),
    "a time without zone": ("log.info.x", GOOD.replace(b"45Z", b"45"), None, "bad_timestamp"),
    "a wrong type": ("log.info.x", GOOD.replace(b'"m"', b"7"), None, "bad_field"),
    "an unknown level": ("log.info.x", GOOD.replace(b"INFO", b"LOUD"), None, "bad_field"),
    "another level than its subject": ("log.error.x", GOOD, None, "subject_mismatch"),
    "another source than its subject": ("log.info.y", GOOD, None, "subject_mismatch"),
    "a subject of another type": ("gateway.status.x.y", GOOD, None, "subject_mismatch"),
    "a subject of none": ("log.info", GOOD, None, "bad_subject"),
    "900 KB": ("log.info.x", GOOD.replace(b'"m"', b'"%b"' % (b"m" * 900_000)), None, "too_large"),
    "as large as NATS takes": ("log.info.x", b"x" * 1_048_576, None, "too_large"),
    "nothing": ("log.info.x", b"", None, "bad_json"),
    "a forged control message": (
        "log.info.x",
        b"",
        {"Status": "100", "Description": "Idle Heartbeat"},
        "bad_json",
    ),
    "a forged end of the consumer": (
        "log.info.x",
        b"",
        {"Status": "409", "Description": "Consumer Deleted"},
        "bad_json",
    ),
}


async def filed(js: JetStreamContext, count: int) -> list[tuple[str, bytes, dict[str, str]]]:
    """Wait for a number of rejected events; return subject, body and headers of each."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if (await js.stream_info("REJECTED")).state.messages >= count:
                    break
            except NotFoundError:
                pass
            await asyncio.sleep(0.02)
    found = [await js.get_msg("REJECTED", seq=number + 1) for number in range(count)]
    return [(message.subject or "", message.data or b"", message.headers or {}) for message in found]


def rejected_total(relay: Relay) -> dict[str, int]:
    """Return the number of rejected events by reason, as in the metrics."""
    with urlopen(f"{relay.ops_url}/metrics") as page:
        text = page.read().decode()
    return {
        sample.labels["reason"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tickertape_events_rejected_total" and sample.value
    }


def test_bad_events_are_stored_and_counted_and_delay_no_other(nats_server: NatsServer) -> None:
    """The events before and after each arrive in order, and its bytes and the reason can be looked up."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            positions = []
            await publish(js, line("0"))
            for number, (subject, data, headers, _) in enumerate(BAD.values()):
                ack = await js.publish(subject, data, headers=headers)
                positions.append(ack.seq)
                await publish(js, line(f"{number + 1}"))
            assert await feed.texts(len(BAD) + 1) == [f"{n}" for n in range(len(BAD) + 1)]
            assert all(one < other for one, other in pairwise(feed.seqs()))

            found = await filed(js, len(BAD))
            for seq, (subject, data, _, reason), (where, body, headers) in zip(
                positions, BAD.values(), found, strict=True
            ):
                assert where == f"rejected.{subject}"
                assert headers["Tickertape-Reason"].partition(":")[0] == reason
                assert headers["Tickertape-Sequence"] == str(seq)
                assert headers["Nats-Msg-Id"].endswith(f"-{seq}")
                if len(data) < 1_000_000:
                    assert body == data
                else:
                    assert data.startswith(body), "what NATS has no room for beside the headers is cut off"
                    assert len(body) > 1_000_000
            counted: dict[str, int] = {}
            for *_, reason in BAD.values():
                counted[reason] = counted.get(reason, 0) + 1
            assert rejected_total(relay) == counted

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_two_relays_file_an_event_once(nats_server: NatsServer) -> None:
    """Two relays store a rejected event once, because its message id is its sequence."""

    async def check(one: Relay, other: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            for _ in range(3):
                await js.publish("log.info.x", b"nonsense")
            await filed(js, 3)
            while rejected_total(one) != {"bad_json": 3} or rejected_total(other) != {"bad_json": 3}:
                await asyncio.sleep(0.02)
            await js.publish("log.info.x", b"last")
            assert (await filed(js, 4))[3][1] == b"last"
            assert (await js.stream_info("REJECTED")).state.messages == 4

    with Relay(nats_server.url) as one, Relay(nats_server.url) as other:
        run(check(one, other))


def test_a_flood_of_garbage_delays_no_client(nats_server: NatsServer) -> None:
    """More rejected events than can be stored are counted nevertheless, and memory stays bounded."""
    total = 3_000

    async def check(relay: Relay) -> None:
        async with connection(nats_server.url) as nc, follow(relay.ws_url) as feed:
            before = relay.resident_bytes
            await publish_burst(nc, (("log.info.x", b"x" * 50_000) for _ in range(total)))
            good = line("after")
            await nc.publish(good.subject, good.encode())
            assert await feed.texts(1) == ["after"]
            assert rejected_total(relay) == {"bad_json": total}
            assert relay.resident_bytes - before < 80_000_000

    with Relay(nats_server.url) as relay:
        run(check(relay))


@pytest.mark.parametrize("level", ["fatal", "FATAL", "critical", "CRITICAL"])
def test_a_level_may_be_spelled_otherwise(nats_server: NatsServer, level: str) -> None:
    """A level in another spelling is delivered under the contract's name, with the rest of the event
    unchanged.
    """

    async def check(relay: Relay) -> None:
        async with connection(nats_server.url) as nc, follow(relay.ws_url) as feed:
            body = b'{%b, "level" : "%b","n":1.50}' % (BASE, level.encode())
            await nc.publish("log.critical.x", body)
            (event,) = await feed.events(1)
            assert event["level"] == "CRITICAL"

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_a_subject_that_is_too_long_to_file_under_costs_no_connection(nats_server: NatsServer) -> None:
    """An event with an overlong subject is stored under its prefix, with the full subject in a header."""
    subject = f"log.info.{'x' * 4_060}"

    async def check(relay: Relay) -> None:
        async with (
            connection(nats_server.url) as nc,
            jetstream(nats_server.url) as js,
            follow(relay.ws_url) as client,
        ):
            await nc.publish(subject, b"no event")  # with a reply subject it would be too long already
            ((position, body, headers),) = await filed(js, 1)
            assert (position, body) == ("rejected.log.info", b"no event")
            assert headers["Tickertape-Subject"] == f"rejected.{subject}"
            seq = await publish(js, line("after it"))
            await client.until(lambda: seq in client.seqs())
            assert [m.type for m in client.messages if m.type == "upstream"] == []

    with Relay(nats_server.url) as relay:
        run(check(relay))
