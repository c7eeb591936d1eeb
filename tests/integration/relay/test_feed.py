"""A real relay on a real NATS as a client sees it: events, filters, snapshots, slow clients."""

import asyncio
import time
from typing import Any

import nats
import orjson
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import Status, SystemHealth
from tickertape.contracts.messages import Bye, Error, Events, Gap, Pong, Snapshot, Subscribed, Welcome

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import (
    PATIENCE,
    connection,
    follow,
    jetstream,
    line,
    publish,
    publish_burst,
    run,
    status,
)
from tests.support.clients.stalled_client import StalledClient
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer


def test_plain_json_from_nats_arrives(nats_server: NatsServer) -> None:
    """JSON that any NATS client publishes is delivered."""

    async def check(relay: Relay) -> None:
        async with connection(nats_server.url) as nc, follow(relay.ws_url, protocol=False) as feed:
            payload = b'{"event_type": "system_log", "timestamp": "2025-06-24T10:30:45.123Z",'
            payload += b' "level": "error", "message": "<b>", "source": "x"}'
            await nc.publish("log.error.x", payload)
            (event,) = await feed.events(1)
            assert (event["level"], event["message"]) == ("ERROR", "<b>")

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_filter_and_level_by_query_and_by_subscribe(nats_server: NatsServer) -> None:
    """Each client receives what it subscribed to; a new filter continues from the position of the old one."""

    async def check(relay: Relay) -> None:
        async with (
            jetstream(nats_server.url) as js,
            follow(relay.ws_url, subjects="log.>", level="warn") as warnings,
            follow(relay.ws_url, subjects="gateway.>,log.*.y") as mixed,
        ):
            for number, level in enumerate(("DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")):
                await publish(js, line(f"x{number}", level, "x"))
                await publish(js, line(f"y{number}", level, "y"))
            await publish(js, status("a"))
            assert await warnings.texts(6) == ["x2", "y2", "x3", "y3", "x4", "y4"]
            got = await mixed.events(6)
            assert [event.get("message") for event in got] == ["y0", "y1", "y2", "y3", "y4", None]
            assert only(warnings.messages, Subscribed)[0].subjects == ["log.>"]

            await warnings.send_message(type="subscribe", subjects=["log.*.x"], level="CRITICAL")
            await warnings.one(Snapshot)
            await publish(js, line("no", "ERROR", "x"))
            await publish(js, line("yes", "FATAL", "x"))
            assert (await warnings.texts(7))[6:] == ["yes"]
            await warnings.send_message(type="ping", id="p1")
            assert (await warnings.one(Pong)).id == "p1"

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_a_snapshot_survives_a_restart_of_the_relay(nats_server: NatsServer) -> None:
    """After a restart the newest states come from NATS; removed ones do not reappear."""

    async def fill() -> None:
        async with jetstream(nats_server.url) as js:
            for gateway in ("a", "b", "c"):
                await publish(js, status(gateway, Status.DEGRADED))
            await publish(js, status("a", Status.HEALTHY))
            await publish(js, status("b", Status.REMOVED))
            await publish(js, SystemHealth(component="relay", status=Status.HEALTHY))

    async def poll(relay: Relay) -> list[tuple[str, Any]]:
        async with follow(relay.ws_url) as feed:
            return [
                (item.subject, item.event.get("current_status", item.event.get("status")))
                for message in only(feed.messages, Snapshot)
                for item in message.events
            ]

    with Relay(nats_server.url) as relay:
        run(fill())
        expected = [
            ("gateway.status.ctp.c", "DEGRADED"),
            ("gateway.status.ctp.a", "HEALTHY"),
            ("system.health.relay", "HEALTHY"),
        ]
        # An acknowledgement may arrive before the relay has the event.
        eventually(lambda: run(poll(relay)) == expected, "the relay shows the newest states")
        assert relay.stop() == 0
        relay.start()
        assert run(poll(relay)) == expected


def test_states_outside_of_the_relays_subjects_are_not_in_its_snapshot(nats_server: NatsServer) -> None:
    """A state outside of the relay's subjects, which would never be updated, is not in the snapshot."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await publish(js, status("a"))
            await publish(js, SystemHealth(component="relay", status=Status.HEALTHY))
        relay.stop()
        relay.options += ["--subjects", "log.>,system.>"]
        relay.start()
        async with follow(relay.ws_url) as feed:
            shown = [item.subject for message in only(feed.messages, Snapshot) for item in message.events]
            assert shown == ["system.health.relay"]
            async with jetstream(nats_server.url) as js:
                await publish(js, status("a", Status.UNHEALTHY))
                await publish(js, line("after"))
            assert await feed.texts(1) == ["after"]

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_snapshot_then_live_under_load(nats_server: NatsServer) -> None:
    """A client that connects while states change misses no change and sees none twice."""
    total = 300

    async def check(relay: Relay) -> None:
        async def change() -> None:
            async with jetstream(nats_server.url) as js:
                for number in range(total):
                    current = status("a").model_copy(update={"metadata": {"n": number}})
                    await publish(js, current)

        async def watch(delay: float) -> None:
            await asyncio.sleep(delay)
            async with follow(relay.ws_url) as feed:
                shown = [
                    item.event["metadata"]["n"]
                    for message in only(feed.messages, Snapshot)
                    for item in message.events
                ]
                first = shown[0] + 1 if shown else 0
                got = await feed.events(total - first)
                assert [event["metadata"]["n"] for event in got] == list(range(first, total))

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(change())
            for number in range(15):
                tasks.create_task(watch(number * 0.03))

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_the_rate_is_limited_and_drops_are_reported(nats_server: NatsServer) -> None:
    """Delivered and dropped log events add up to those published; all states are delivered."""

    async def check(relay: Relay) -> None:
        async with connection(nats_server.url) as nc, follow(relay.ws_url) as feed:
            began = time.monotonic()
            for number in range(2000):
                event = status("a") if number % 20 == 0 else line(f"{number}")
                await nc.publish(event.subject, event.encode())
            last = line("last", "CRITICAL")
            await nc.flush()
            await asyncio.sleep(0.3)
            await nc.publish(last.subject, last.encode())

            def dropped() -> int:
                return sum(gap.dropped or 0 for gap in only(feed.messages, Gap))

            await feed.until(lambda: len(feed.seqs()) + dropped() >= 2001)
            assert len(feed.seqs()) + dropped() == 2001
            events = [item.event for message in only(feed.messages, Events) for item in message.events]
            assert sum(event["event_type"] == "gateway_status_change" for event in events) == 100
            most = 100 + 100 * (time.monotonic() - began) + 1
            assert sum(event["event_type"] == "system_log" for event in events) <= most
            assert events[-1]["message"] == "last"
            assert {gap.reason for gap in only(feed.messages, Gap)} == {"rate"}
            assert set().union(*(gap.by for gap in only(feed.messages, Gap))) == {"log.info"}

    with Relay(nats_server.url) as relay:
        assert "--client-rate" not in relay.options
        run(check(relay))


def test_a_subject_prefix_is_never_seen_by_clients(nats_server: NatsServer) -> None:
    """Two deployments on one NATS with different prefixes are separate, and clients never see the prefix."""

    async def check(relay: Relay) -> None:
        async with (
            jetstream(nats_server.url) as js,
            follow(relay.ws_url, subjects="log.info.>,gateway.>") as feed,
        ):
            await js.add_stream(name="OTHER", subjects=["log.>"])
            await publish(js, line("another deployment"))
            await publish(js, line("ours"), prefix="prod.eu.")
            await publish(js, status("a"), prefix="prod.eu.")
            await js.publish("prod.eu.log.info.x", b"nonsense")
            await feed.events(2)
            items = [item for message in only(feed.messages, Events) for item in message.events]
            assert [item.subject for item in items] == ["log.info.x", "gateway.status.ctp.a"]
            assert "prod" not in str(feed.messages)
            while True:
                state = await js.stream_info("REJECTED_prod_eu")
                if state.state.messages:
                    break
                await asyncio.sleep(0.02)
            filed = await js.get_msg("REJECTED_prod_eu", seq=1)
            assert filed.subject == "prod.eu.rejected.log.info.x"
        relay.stop()
        relay.start()
        async with follow(relay.ws_url) as feed:
            (snapshot,) = only(feed.messages, Snapshot)
            assert [item.subject for item in snapshot.events] == ["gateway.status.ctp.a"]

    with Relay(nats_server.url, TICKERTAPE_SUBJECT_PREFIX="prod.eu") as relay:
        run(check(relay))


def test_many_clients_get_the_same(nats_server: NatsServer) -> None:
    """Every client receives every event, in order."""

    async def check(relay: Relay) -> None:
        async def watch() -> list[str]:
            async with follow(relay.ws_url) as feed:
                started.release()
                return await feed.texts(500)

        started = asyncio.Semaphore(0)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(watch()) for _ in range(20)]
            for _ in watching:
                await started.acquire()
            async with connection(nats_server.url) as nc:
                for number in range(500):
                    event = line(f"{number}")
                    await nc.publish(event.subject, event.encode())
                await nc.flush()
        assert [task.result() for task in watching] == [[f"{n}" for n in range(500)]] * 20

    with Relay(nats_server.url, "--client-rate", "0") as relay:
        run(check(relay))


def stall(nats_server: NatsServer, relay: Relay, total: int) -> tuple[list[int], list[Gap]]:
    """Stall one client while another reads a number of events; return what the stalled one receives
    afterwards.
    """

    async def check() -> None:
        # On a busy machine this client may be slow as well, so it asks for all events.
        async with follow(relay.ws_url, mode="complete") as feed, connection(nats_server.url) as nc:
            events = (line(f"{number} {'x' * 400}") for number in range(total))
            reading = asyncio.create_task(feed.events(total))
            await publish_burst(nc, ((event.subject, event.encode()) for event in events))
            await reading
            assert feed.seqs() == list(range(1, total + 1))
            assert only(feed.messages, Gap) == []

    stalled = StalledClient(relay.host_port)
    try:
        run(check())
        return stalled.read(total)
    finally:
        stalled.close()


def test_a_stalled_client_delays_no_other_and_learns_what_it_missed(nats_server: NatsServer) -> None:
    """The other client receives everything; the stalled one receives the newest events and the number it
    missed.
    """
    total = 20_000
    with Relay(nats_server.url, "--client-rate", "0") as relay:
        before = relay.resident_bytes
        seqs, gaps = stall(nats_server, relay, total)
        # The event log holds about 11 MB of these events; a queue for the stalled client would double that.
        assert relay.resident_bytes - before < 60_000_000
        assert len(seqs) + sum(gap.dropped or 0 for gap in gaps) == total
        assert seqs == sorted(set(seqs))
        assert seqs[-1] == total
        assert {gap.reason for gap in gaps} == {"slow"}


def test_a_stalled_client_that_falls_out_of_memory_gets_a_gap(nats_server: NatsServer) -> None:
    """A client that falls out of memory gets a gap of unknown size, and a complete sequence after it."""
    total = 10_000
    with Relay(nats_server.url, "--client-rate", "0", "--log-size", "500") as relay:
        seqs, gaps = stall(nats_server, relay, total)
        assert [(gap.dropped, gap.reason) for gap in gaps] == [(None, "slow")]
        begin, end = (parse_cursor(position).sequence for position in (gaps[0].from_, gaps[0].to))
        assert seqs == [*range(1, begin + 1), *range(end + 1, total + 1)]


def test_a_client_of_another_loop_needs_no_subprotocol(nats_server: NatsServer) -> None:
    """A plain WebSocket without subprotocol and messages is a working client."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url, protocol=False, live=False) as feed:
            assert feed.socket.subprotocol is None
            assert isinstance(await feed.read(), Welcome)
        async with follow(relay.ws_url, live=False) as feed:
            assert feed.socket.subprotocol == "tickertape.v1"
            await feed.socket.send("nonsense")
            assert (await feed.one(Error)).code == "bad_json"
            assert (await feed.one(Bye)).code == 4400
            assert await feed.closed() == 4400

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_an_unknown_event_type_travels(nats_server: NatsServer) -> None:
    """Unknown event types are delivered on any subject that the stream captures."""

    async def check(relay: Relay) -> None:
        nc = await nats.connect(nats_server.url)
        async with follow(relay.ws_url, subjects="system.>") as feed:
            body = {"event_type": "tax_day", "timestamp": "2025-06-24T10:30:45Z", "n": [1, {"b": None}]}
            await nc.publish("system.tax.day", orjson.dumps(body))
            assert await feed.events(1) == [body]
        await nc.close()

    with Relay(nats_server.url) as relay:
        run(check(relay))
