"""What ``tickertape check`` says of a real NATS: reached, complete, with room, and with a clock like ours."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tickertape.relay.settings import RelaySettings

from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli.check.finding import NAMES, Finding
from tickertape.cli.check.nats import check_nats
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.streams import apply, request

SECRET = "hunter-2-and-more"


def found(url: str | None, now: Callable[[], float] = time.time, **values: Any) -> list[Finding]:
    """What is found at an address."""
    result = asyncio.run(check_nats(RelaySettings(nats_url=url, **values), now))
    assert {one.name for one in result} <= NAMES
    assert SECRET not in str(result)
    return result


def named(result: list[Finding], name: str) -> list[Finding]:
    """Those of one name."""
    return [one for one in result if one.name == name]


def only(result: list[Finding], name: str) -> Finding:
    """The one of that name."""
    (one,) = named(result, name)
    return one


def make(url: str, change: dict[str, Any] | None = None) -> None:
    """Make the streams as the contract has them, and then EVENTS a little otherwise."""

    async def work() -> None:
        client = await connection.connect_once(url, name="test")
        try:
            await apply(client, Names())
            if change:
                there = (await request(client, "STREAM.INFO.EVENTS"))["config"]
                answer = await request(client, "STREAM.UPDATE.EVENTS", {**there, **change})
                assert "error" not in answer, answer
        finally:
            await connection.close(client)

    asyncio.run(work())


def test_all_is_well(nats_server: NatsServer) -> None:
    """One finding for each thing, and each says what was seen."""
    make(nats_server.url)
    result = found(nats_server.url)
    assert [(one.name, one.state) for one in result] == [
        ("nats", "ok"),
        ("nats_version", "ok"),
        ("jetstream", "ok"),
        ("streams", "ok"),
        ("storage", "ok"),
        ("rejected", "ok"),
        ("clock", "ok"),
        ("round_trip", "ok"),
    ]
    assert f"at {nats_server.url}: connected to server N" in result[0].text
    assert "may grow by 1,472 MiB" in only(result, "storage").text


def test_absent_streams_are_noted(nats_server: NatsServer) -> None:
    """The relay makes them; the check does not, and says that it saw no clock."""
    for _ in range(2):
        result = found(nats_server.url)
        assert [one.text for one in named(result, "streams")] == [
            f"stream {name} does not exist"
            for name in ("WATCHDOG", "EVENTS", "LATEST", "CHECKPOINTS", "REJECTED")
        ]
        assert only(result, "clock").state == "warn"
        assert "error" not in {one.state for one in result}


def test_streams_that_are_otherwise_are_told(nats_server: NatsServer) -> None:
    """What breaks a promise is an error; another size may be meant."""
    make(nats_server.url, {"allow_direct": False, "max_age": 3600 * 10**9})
    breaks, sized = sorted(named(found(nats_server.url), "streams"), key=lambda one: one.state)
    assert (breaks.state, breaks.hint) == ("error", "run 'tickertape streams apply'")
    assert "EVENTS has allow_direct" in breaks.text
    assert (sized.state, sized.hint) == ("warn", "left unchanged")


@pytest.mark.parametrize(
    ("off", "state", "way"),
    [
        (90.0, "error", "ahead of"),
        (-90.0, "error", "behind"),
        (2.5, "warn", "ahead of"),
        (0.0, "ok", "agree"),
    ],
)
def test_a_clock_that_is_wrong_is_told(nats_server: NatsServer, off: float, state: str, way: str) -> None:
    """By how much, to within how much, and in which direction."""
    make(nats_server.url)
    one = only(found(nats_server.url, lambda: time.time() + off), "clock")
    assert one.state == state, one
    assert way in one.text
    if off:
        assert abs(abs(off) - float(one.text.partition("machine is ")[2].split()[0])) < 1.0


def test_rejected_events_are_told(nats_server: NatsServer) -> None:
    """While they are news: how many, how old the newest is, and where their reasons are."""
    make(nats_server.url)

    async def reject() -> None:
        client = await connection.connect_once(nats_server.url, name="test")
        await client.jetstream().publish("rejected.log.info.x", b"nonsense")
        await connection.close(client)

    asyncio.run(reject())
    one = only(found(nats_server.url), "rejected")
    assert one.state == "warn"
    assert one.text.startswith("1 rejected events, the last ")
    assert "streams rejected" in one.hint
    later = only(found(nats_server.url, lambda: time.time() + 7200), "rejected")
    assert (later.state, later.hint) == ("ok", "")


def test_an_account_without_room_is_told(tmp_path: Path) -> None:
    """Before NATS refuses events."""
    config = (
        f"accounts {{ A {{ jetstream: {{ max_file: %s }}, users: [{{ user: a, password: {SECRET} }}] }} }}"
    )
    with NatsServer(tmp_path, config=config % "2G") as server:
        url = server.url.replace("//", f"//a:{SECRET}@")
        make(url)
        assert only(found(url), "storage").state == "ok"
        server.stop()
        server.config = config % "1G"
        server.start()
        one = only(found(url), "storage")
        assert one.state == "error"
        assert "of 954 MiB left" in one.text


def test_a_user_who_may_not_ask_for_the_account_gets_notes(tmp_path: Path) -> None:
    """As the relay of the deployed configuration; what it may ask is told all the same."""
    config = f"""authorization {{ users: [
        {{ user: all, password: {SECRET} }},
        {{ user: less, password: {SECRET}, permissions: {{ publish: {{ deny: ["$JS.API.INFO"] }} }} }}
    ] }}"""
    with NatsServer(tmp_path, config=config) as server:
        make(server.url.replace("//", f"//all:{SECRET}@"))
        result = found(server.url.replace("//", f"//less:{SECRET}@"))
        assert {one.name: one.state for one in result} == {
            "nats": "ok",
            "nats_version": "ok",
            "jetstream": "warn",
            "streams": "ok",
            "storage": "warn",
            "rejected": "ok",
            "clock": "ok",
            "round_trip": "ok",
        }


def test_jetstream_that_is_off_is_told(tmp_path: Path) -> None:
    """With how it is turned on."""
    with NatsServer(tmp_path, jetstream=False) as server:
        one = only(found(server.url), "jetstream")
        assert one.state == "error"
        assert "-js" in one.hint


def test_each_address_of_a_cluster_is_told(tmp_path: Path) -> None:
    """Which server answered, and which did not; without a secret that an address holds."""
    routes = [free_port(), free_port()]
    cluster = "cluster {{ name: EAST, listen: '127.0.0.1:{}', routes: ['nats://127.0.0.1:{}'] }}\n"
    dead = f"nats://u:{SECRET}@127.0.0.1:{free_port()}"
    config = [cluster.format(*order) + f"server_name: n{order[0]}" for order in (routes, routes[::-1])]
    with (
        NatsServer(tmp_path / "a", jetstream=False, config=config[0]) as one,
        NatsServer(tmp_path / "b", jetstream=False, config=config[1]) as two,
    ):
        first, second, third = named(found(f"{one.url}, {two.url},{dead}"), "nats")
        assert first.text.endswith(f"at {one.url}: connected to server n{routes[0]} of cluster EAST")
        assert second.text.endswith(f"at {two.url}: connected to server n{routes[1]} of cluster EAST")
        assert third.state == "error"
        assert "nats://***@127.0.0.1" in third.text
        assert third.hint


def test_two_servers_that_are_no_cluster_are_told(nats_server: NatsServer, tmp_path: Path) -> None:
    """Each would have streams of its own, and the relay would see those of either."""
    with NatsServer(tmp_path / "other") as other:
        result = named(found(f"{nats_server.url},{other.url}"), "nats")
        assert [one.state for one in result] == ["ok", "ok", "error"]
        assert "2 servers do not form a cluster" in result[2].text


def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    """And nothing else is asked."""
    with NatsServer(tmp_path, config="authorization { user: app, password: right }") as server:
        (one,) = found(server.url, nats_user="app", nats_password=SECRET)
        assert one.state == "error"
        assert "rejected the credentials" in one.text
        assert one.hint == "check the user and password, the nkey, or the .creds file"


def test_nobody_at_an_address_is_told_in_words() -> None:
    """Without the number that the system has for it."""
    url = f"nats://127.0.0.1:{free_port()}"
    (one,) = found(url)
    # The rest is the event loop's: each has words of its own.
    assert one.text.startswith(f"NATS at {url} unreachable: Conn")
    assert one.hint == "check that it is running and that --nats-url is correct"


def test_the_relays_own_nats_need_not_run() -> None:
    """Its port has to be free for it, or its own."""
    port = free_port()
    one = only(found(None, nats_port=port), "nats")
    assert one.state == "ok"
    assert "which is available" in one.text
    assert "free port" in only(found(None, nats_port=0), "nats").text


def test_another_nats_on_the_port_of_the_relays_own_is_told(nats_server: NatsServer) -> None:
    """The relay would not start."""
    one = only(found(None, nats_port=nats_server.port), "nats")
    assert one.state == "error"
    assert one.hint == f"connect to it with --nats-url {nats_server.url}, or choose another --nats-port"


def test_another_program_on_that_port_is_told() -> None:
    """Whoever it is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        one = only(found(None, nats_port=port), "nats")
    assert one.state == "error"
    assert f"127.0.0.1:{port} is already in use" in one.text
    assert "--nats-port" in one.hint
