"""The streams on a real server: created, compared, changed on request, and filled."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from tickertape.contracts import subjects
from tickertape.contracts.events import GatewayStatusChange, Status, SystemHealth, SystemLog

from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import jetstream_api as jetstream
from tickertape.nats import streams
from tickertape.nats.streams import StreamsError

ALL = ["WATCHDOG", "EVENTS", "HEALTH", "LATEST", "CHECKPOINTS", "REJECTED", "HISTORY"]
DEADLINE = 15.0
"""Seconds for a stream to source a message from another; usually some milliseconds."""

T = TypeVar("T")


def _run(url: str, body: Callable[[Client], Awaitable[T]]) -> T:
    """Run the body of a test with a connected client."""

    async def connected() -> T:
        nc = await nats.connect(url)
        try:
            return await body(nc)
        finally:
            await nc.close()

    return asyncio.run(connected())


async def _config(nc: Client, stream: str) -> dict[str, Any]:
    found = await streams.stream_info(nc, stream)
    assert found is not None
    config: dict[str, Any] = found["config"]
    return config


async def _create(nc: Client, config: dict[str, Any]) -> None:
    answer = await streams.request(nc, f"STREAM.CREATE.{config['name']}", config)
    assert "error" not in answer, answer


async def _newest(nc: Client, stream: str, subject: str, payload: bytes) -> dict[str, str]:
    """Wait until a stream's newest message on a subject is this one; return its headers."""
    js = nc.jetstream()
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                message = await js.get_last_msg(stream, subject)
            except NotFoundError:
                pass
            else:
                if message.data == payload:
                    return message.headers or {}
            await asyncio.sleep(0.01)


def test_all_are_created_once(nats_url: str, nats_prefix: str) -> None:
    """The first start creates all streams, and a second finds them as required."""
    names = Names(nats_prefix)

    async def body(nc: Client) -> None:
        assert [d.setting for d in await streams.differences(nc, names)] == ["name"] * 7
        first = await streams.provision(nc, names)
        assert first.created == [names.stream(name) for name in ALL]
        assert first.notes == []
        second = await streams.provision(nc, names)
        assert (second.created, second.notes) == ([], [])
        assert await streams.differences(nc, names) == []
        assert await streams.apply(nc, names) == []

    _run(nats_url, body)


def test_many_relays_start_simultaneously(nats_server: NatsServer) -> None:
    """Of several relays that start without streams each finds all, and each stream is created once."""

    async def one() -> list[str]:
        nc = await nats.connect(nats_server.url)
        try:
            return (await streams.provision(nc, Names())).notes
        finally:
            await nc.close()

    async def body(nc: Client) -> None:
        assert await asyncio.gather(*(one() for _ in range(4))) == [[], [], [], []]
        assert await streams.differences(nc, Names()) == []

    _run(nats_server.url, body)


@pytest.mark.parametrize(
    ("stream", "change", "line"),
    [
        (
            "EVENTS",
            {"storage": "memory"},
            "stream EVENTS has storage 'memory', the contract requires 'file'; "
            "run 'tickertape streams apply', or choose another TICKERTAPE_SUBJECT_PREFIX",
        ),
        (
            "EVENTS",
            {"allow_rollup_hdrs": True},
            "stream EVENTS has allow_rollup_hdrs True, the contract requires False",
        ),
        ("EVENTS", {"subjects": ["log.>"]}, "stream EVENTS has subjects ['log.>'], the contract requires"),
        (
            "REJECTED",
            {"retention": "interest"},
            "stream REJECTED has retention 'interest', the contract requires 'limits'",
        ),
    ],
)
def test_other_settings_are_rejected(
    nats_server: NatsServer, stream: str, change: dict[str, Any], line: str
) -> None:
    """A stream that violates the contract is left alone and reported in one line with a hint."""

    async def body(nc: Client) -> None:
        expected = {config["name"]: config for config in streams.stream_configs(Names())}
        # Alone on the server it cannot source another, and in memory it has to be small.
        config = {key: value for key, value in expected[stream].items() if key != "sources"}
        config |= {"max_bytes": 1_000_000, **change}
        await _create(nc, config)
        with pytest.raises(StreamsError) as caught:
            await streams.provision(nc, Names())
        assert str(caught.value).startswith(line)
        assert "\n" not in str(caught.value)
        (key,) = change
        assert (await _config(nc, stream))[key] == change[key]

    _run(nats_server.url, body)


def test_other_sizes_are_kept_with_a_note(nats_server: NatsServer) -> None:
    """A stream with different sizes works, is kept, and is noted."""

    async def body(nc: Client) -> None:
        for expected in streams.stream_configs(Names()):
            if expected["name"] == "WATCHDOG":
                await _create(nc, expected)
            if expected["name"] == "EVENTS":
                await _create(nc, {**expected, "max_bytes": 50_000_000, "compression": "none"})
        found = await streams.provision(nc, Names())
        assert found.created == ["HEALTH", "LATEST", "CHECKPOINTS", "REJECTED", "HISTORY"]
        assert found.notes == [
            "stream EVENTS has max_bytes 50000000, the contract requires 1GiB; left unchanged",
            "stream EVENTS has compression 'none', the contract requires 's2'; left unchanged",
        ]
        assert (await _config(nc, "EVENTS"))["max_bytes"] == 50_000_000

    _run(nats_server.url, body)


def test_jetstream_disabled_is_reported(tmp_path: Path) -> None:
    """A server without JetStream is one line with a hint."""

    async def body(nc: Client) -> None:
        with pytest.raises(StreamsError, match="JetStream") as caught:
            await streams.provision(nc, Names())
        assert "; " in str(caught.value)
        assert "\n" not in str(caught.value)

    with NatsServer(tmp_path, jetstream=False) as server:
        _run(server.url, body)


def test_jetstream_disabled_for_the_account_is_reported(tmp_path: Path) -> None:
    """An account without JetStream is one line with a hint."""
    accounts = "accounts { A { users: [{user: a, password: b}] } }\nno_auth_user: a"

    async def body(nc: Client) -> None:
        with pytest.raises(StreamsError, match="JetStream") as caught:
            await streams.provision(nc, Names())
        assert "account" in str(caught.value)

    with NatsServer(tmp_path, config=accounts) as server:
        _run(server.url, body)


def test_a_silent_server_is_reported(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not respond is one line, after a timeout."""
    monkeypatch.setattr(jetstream, "_API_TIMEOUT", 0.05)

    async def body(nc: Client) -> None:
        nats_server.pause()
        try:
            with pytest.raises(
                StreamsError, match=r"JetStream did not reply to STREAM\.INFO\.WATCHDOG within"
            ):
                await streams.provision(nc, Names())
        finally:
            nats_server.resume()

    _run(nats_server.url, body)


def test_subjects_of_another_stream_are_rejected(nats_server: NatsServer) -> None:
    """Another stream with overlapping subjects is named in the error."""

    async def body(nc: Client) -> None:
        await nc.jetstream().add_stream(name="MINE", subjects=["log.>"])
        with pytest.raises(StreamsError) as caught:
            await streams.provision(nc, Names())
        assert str(caught.value) == (
            "NATS rejected stream EVENTS: subjects overlap with an existing stream (code 10065); "
            "check for another stream with the same subjects ('nats stream ls') and the account limits"
        )
        # A deployment with its own prefix can share the server with it.
        assert len((await streams.provision(nc, Names("own"))).created) == 7

    _run(nats_server.url, body)


def test_deployments_with_prefixes_are_apart(nats_server: NatsServer) -> None:
    """An event published under one prefix is in that deployment's streams only."""

    async def body(nc: Client) -> None:
        for names in (Names("prod.eu"), Names("test"), Names()):
            await streams.provision(nc, names)
        js = nc.jetstream()
        ack = await js.publish("prod.eu.gateway.status.a.b", b"1")
        assert (ack.stream, ack.seq) == ("EVENTS_prod_eu", 1)
        headers = await _newest(nc, "LATEST_prod_eu", "prod.eu.gateway.status.a.b", b"1")
        assert headers["Nats-Stream-Source"].startswith("EVENTS_prod_eu 1 ")
        for stream in ("EVENTS", "EVENTS_test", "LATEST", "LATEST_test"):
            found = await streams.stream_info(nc, stream)
            assert found is not None
            assert found["state"]["messages"] == 0

    _run(nats_server.url, body)


def test_apply_changes_what_provisioning_only_reports(nats_server: NatsServer) -> None:
    """``apply`` creates and changes streams to match the contract, and reports each change."""

    async def body(nc: Client) -> None:
        expected = {config["name"]: config for config in streams.stream_configs(Names())}
        await _create(nc, expected["WATCHDOG"])
        await _create(nc, {**expected["EVENTS"], "max_age": 3_600_000_000_000, "subjects": ["log.>"]})
        with pytest.raises(StreamsError, match="has subjects"):
            await streams.provision(nc, Names())
        assert await streams.apply(nc, Names()) == [
            "stream EVENTS: subjects ['log.>'] -> ['gateway.>', 'system.>', 'log.>', 'checkpoint.>']",
            "stream HEALTH created",
            "stream LATEST created",
            "stream CHECKPOINTS created",
            "stream REJECTED created",
            "stream HISTORY created",
        ]
        assert await streams.apply(nc, Names()) == []
        found = await streams.provision(nc, Names())
        # The operator's retention is kept: a shorter one would delete events.
        assert (found.created, found.notes) == (
            [],
            ["stream EVENTS has max_age 3600s, the contract requires 86400s; left unchanged"],
        )

    _run(nats_server.url, body)


def test_apply_reports_what_cannot_be_changed(nats_server: NatsServer) -> None:
    """A change that the server rejects is reported with the reason."""

    async def body(nc: Client) -> None:
        expected = {config["name"]: config for config in streams.stream_configs(Names())}
        await _create(nc, {**expected["REJECTED"], "storage": "memory"})
        with pytest.raises(StreamsError, match=r"NATS rejected stream REJECTED: .*storage"):
            await streams.apply(nc, Names())

    _run(nats_server.url, body)


def test_latest_and_checkpoints_fill_from_events(nats_url: str, nats_prefix: str) -> None:
    """They hold the newest message per subject, and LATEST states its sequence in EVENTS."""
    names = Names(nats_prefix)

    async def body(nc: Client) -> None:
        await streams.provision(nc, names)
        js = nc.jetstream()
        status, health, log, checkpoint_subject = (
            names.subject(subject)
            for subject in (
                GatewayStatusChange.subject_of(gateway_type="ctp", gateway_id="main"),
                SystemHealth.subject_of(component="db", instance="1"),
                SystemLog.subject_of(level="INFO", source="a"),
                subjects.checkpoint_subject("host", "/var/log/x"),
            )
        )
        for number in range(3):
            for subject in (status, health, log, checkpoint_subject):
                last = await js.publish(subject, b"%d" % number)
        assert (last.stream, last.seq) == (names.stream("EVENTS"), 12)
        headers = await _newest(nc, names.stream("LATEST"), status, b"2")
        assert headers["Nats-Stream-Source"].split(" ")[:2] == [names.stream("EVENTS"), "9"]
        await _newest(nc, names.stream("HEALTH"), health, b"2")
        await _newest(nc, names.stream("CHECKPOINTS"), checkpoint_subject, b"2")
        for stream, held in (("LATEST", 1), ("HEALTH", 1), ("CHECKPOINTS", 1)):
            found = await streams.stream_info(nc, names.stream(stream))
            assert found is not None
            assert found["state"]["messages"] == held
        with pytest.raises(NotFoundError):
            await js.get_last_msg(names.stream("LATEST"), log)

    _run(nats_url, body)


def test_latest_is_made_again_when_events_is_newer(nats_server: NatsServer) -> None:
    """Copies that refer to sequences of a deleted EVENTS are discarded with it."""

    async def body(nc: Client) -> None:
        await streams.provision(nc, Names())
        js = nc.jetstream()
        await js.publish("gateway.status.ctp.ghost", b"old")
        await _newest(nc, "LATEST", "gateway.status.ctp.ghost", b"old")
        await js.delete_stream("EVENTS")
        found = await streams.provision(nc, Names())
        assert found.created == ["EVENTS", "HEALTH", "LATEST"]
        assert found.notes == [
            "stream HEALTH was older than EVENTS and was recreated",
            "stream LATEST was older than EVENTS and was recreated",
            "stream HISTORY copied from an earlier EVENTS, and copies from the current one now",
        ]
        await js.publish("gateway.status.ctp.main", b"new")
        headers = await _newest(nc, "LATEST", "gateway.status.ctp.main", b"new")
        assert headers["Nats-Stream-Source"].startswith("EVENTS 1 ")
        with pytest.raises(NotFoundError):
            await js.get_last_msg("LATEST", "gateway.status.ctp.ghost")
        assert (await streams.provision(nc, Names())).created == []

    _run(nats_server.url, body)


def test_a_watchdog_that_fires_is_a_status(nats_url: str, nats_prefix: str) -> None:
    """A switch that a monitor did not renew publishes the gateway's status to EVENTS and LATEST."""
    names = Names(nats_prefix)
    event = GatewayStatusChange(
        gateway_id="main", gateway_type="ctp", previous_status=Status.HEALTHY, current_status=Status.UNKNOWN
    )

    async def body(nc: Client) -> None:
        await streams.provision(nc, names)
        js = nc.jetstream()
        armed = {
            "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
            "Nats-Schedule-Target": names.subject("watchdog.fired.ctp.main"),
        }
        ack = await js.publish(names.subject("watchdog.armed.ctp.main"), event.encode(), headers=armed)
        assert ack.stream == names.stream("WATCHDOG")
        for stream in ("EVENTS", "LATEST"):
            await _newest(nc, names.stream(stream), names.subject(event.subject), event.encode())

    _run(nats_url, body)


def test_a_producer_cannot_erase_a_subject(nats_url: str, nats_prefix: str) -> None:
    """EVENTS accepts neither roll-ups nor schedules, whatever headers a producer sends."""
    names = Names(nats_prefix)

    async def body(nc: Client) -> None:
        await streams.provision(nc, names)
        js = nc.jetstream()
        subject = names.subject("log.info.a")
        await js.publish(subject, b"kept")
        for headers in (
            {"Nats-Rollup": "all"},
            {"Nats-Rollup": "sub"},
            {
                "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
                "Nats-Schedule-Target": names.subject("gateway.status.a.b"),
            },
        ):
            with pytest.raises(nats.js.errors.APIError):
                await js.publish(subject, b"forged", headers=headers)
        found = await streams.stream_info(nc, names.stream("EVENTS"))
        assert found is not None
        assert found["state"]["messages"] == 1

    _run(nats_url, body)
