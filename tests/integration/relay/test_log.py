"""The log of a real relay: one line per important event, and none per delivered event."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tickertape.contracts.messages import Welcome

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow, jetstream, line, publish, run
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.serve import BURST, RATE, ShippingLimit


@pytest.fixture
def relay(nats_server: NatsServer) -> Iterator[Relay]:
    """Run a relay with JSON logs, the default without a terminal."""
    with Relay(nats_server.url, TICKERTAPE_LOG_FORMAT="auto") as running:
        yield running


def entries(relay: Relay) -> list[dict[str, Any]]:
    """Parse the log: every line is an object with the same four fields."""
    found = [json.loads(text) for text in list(relay.log)]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in found)
    return found


def entry(relay: Relay, words: str) -> dict[str, Any]:
    """Return the only entry whose message contains a text."""
    relay.until_logged(words)
    (found,) = [one for one in entries(relay) if words in one["message"]]
    return found


def test_a_run_is_logged_in_a_few_lines(relay: Relay, nats_server: NatsServer) -> None:
    """Startup, NATS, ready, a rejected client and exit are logged; clients and events are not."""

    async def live() -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url, mode="complete") as feed:
            for number in range(300):
                await publish(js, line(f"line {number}"))
            await feed.texts(300)
        for _ in range(10):
            async with follow(relay.ws_url):
                pass

    assert entry(relay, "ready after")["seconds"] > 0
    before = len(relay.log)
    run(live())
    assert relay.stop() == 0
    assert [one["message"].partition(" ")[0] for one in entries(relay)[before:]] == [
        "shutting", "drained", "stopped",
    ]  # fmt: skip
    first, *_, last = entries(relay)
    assert first.items() >= {"level": "INFO", "auth": "none", "host": "127.0.0.1", "tls": False}.items()
    assert first["message"] == f"starting version {first['version']}"
    assert last.items() >= {"message": "stopped", "code": 0}.items()


def test_the_end_of_an_outage_is_logged_with_its_duration(relay: Relay, nats_server: NatsServer) -> None:
    """An outage of NATS is logged once, and its end with the duration."""
    nats_server.stop()
    assert entry(relay, "unreachable, retrying")["level"] == "WARNING"
    nats_server.start()
    found = entry(relay, "receiving events again")
    assert found["level"] == "INFO"
    assert 0 < found["outage"] < 60


def test_a_closed_session_is_logged_with_its_id(relay: Relay) -> None:
    """A session that the relay closes is logged with the id that its client received in ``welcome``."""

    async def misbehave() -> str:
        async with follow(relay.ws_url) as feed:
            (welcome,) = only(feed.messages, Welcome)
            await feed.socket.send("no JSON")
            assert await feed.closed() == 4400
            return welcome.session

    session = run(misbehave())
    found = entry(relay, f"closed session {session} from 127.0.0.1: ")
    assert found.items() >= {"level": "WARNING", "session": session, "code": 4400}.items()


def test_a_rejected_client_is_logged_with_the_reason(relay: Relay) -> None:
    """A rejected client is logged with its address, and many of them are summarized in a few lines."""

    async def come() -> None:
        for _ in range(20):
            async with follow(f"{relay.ws_url}?mode=sideways", live=False) as feed:
                assert await feed.closed() == 4409

    def received() -> list[dict[str, Any]]:
        return [
            one for one in entries(relay) if "rejected client 127.0.0.1: bad_mode (4409)" in one["message"]
        ]

    def summed_up() -> int:
        return sum(one.get("rejected", {}).get("4409", 0) for one in entries(relay))

    run(come())
    # Five lines are logged per window and the rest is summarized; the number of windows depends on the
    # machine.
    eventually(lambda: len(received()) + summed_up() == 20, "all are told")
    found = received()
    assert len(found) >= 5
    assert found[0].items() >= {"level": "WARNING", "code": 4409, "address": "127.0.0.1"}.items()


def test_a_log_that_is_shipped_does_not_feed_itself(nats_server: NatsServer) -> None:
    """A shipped log line is in the stream once, is delivered to clients, and causes no further lines."""

    async def shipped() -> list[dict[str, Any]]:
        async with jetstream(nats_server.url) as js:
            last = (await js.stream_info("EVENTS")).state.last_seq
            found = [await js.get_msg("EVENTS", seq) for seq in range(1, last + 1)]
            return [json.loads(one.data or b"") for one in found if ".relay" in (one.subject or "")]

    async def live(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url, since="earliest") as feed:
            await feed.until(lambda: "ready after" in str(feed.messages))
            for number in range(50):
                await publish(js, line(f"line {number}"))
            await feed.until(lambda: "line 49" in str(feed.messages))
            async with follow(relay.ws_url) as bad:
                await bad.socket.send("no JSON")
                assert await bad.closed() == 4400
            await feed.until(lambda: "invalid message or query" in str(feed.messages))

    with Relay(nats_server.url, "--log-ship", "relay", TICKERTAPE_LOG_FORMAT="json") as relay:
        run(live(relay))
        assert relay.stop() == 0
        output = [one["message"] for one in entries(relay)]
    events = run(shipped())
    texts = [event["message"] for event in events]
    begins = output.index(texts[0])
    assert texts == output[begins : begins + len(texts)], "each line once, in order"
    assert len(output) < 25
    assert "drained in" in texts[-1], "what was said at the end is there too"
    (bad,) = [event for event in events if "invalid message or query" in event["message"]]
    assert bad["source"] == "relay"
    assert bad["level"] == "WARN"
    assert bad["metadata"]["code"] == 4400


def test_shipping_is_bounded_whatever_happens() -> None:
    """After a burst a steady rate of lines is shipped, and the omitted ones are counted."""
    now = [0.0]
    allowance = ShippingLimit(lambda: now[0])
    assert [allowance.admit() for _ in range(BURST + 50)].count(0) == BURST
    now[0] = 1.0
    assert allowance.admit() == 50
    assert [allowance.admit() for _ in range(50)].count(None) == 50 - int(RATE) + 1


def test_the_relay_keeps_running_while_its_log_cannot_be_shipped(nats_server: NatsServer) -> None:
    """While NATS is unreachable, lines wait, the relay keeps running, and the reason is logged once."""
    with Relay(nats_server.url, "--log-ship", "relay", TICKERTAPE_LOG_FORMAT="json") as relay:
        nats_server.stop()
        entry(relay, "unreachable, retrying")
        nats_server.start()
        entry(relay, "receiving events again")

        async def poll() -> None:
            async with follow(relay.ws_url, since="earliest") as feed:
                await feed.until(lambda: "receiving events again" in str(feed.messages))
                assert "unreachable, retrying" in str(feed.messages)

        run(poll())
        assert len(relay.log) < 20
