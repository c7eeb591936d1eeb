"""Findings of ``tickertape check`` about a real NATS server: connection, streams, storage and clock."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tickertape.relay.settings import RelaySettings

from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli.check.finding import Finding
from tickertape.cli.check.nats import check_nats
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.streams import apply, request

SECRET = "hunter-2-and-more"


def findings(url: str | None, now: Callable[[], float] = time.time, **values: Any) -> list[Finding]:
    """Return the findings for a URL; none may contain the secret."""
    result = asyncio.run(check_nats(RelaySettings(nats_url=url, **values), now))
    assert SECRET not in str(result)
    return result


def with_name(result: list[Finding], name: str) -> list[Finding]:
    """Return the findings with a name."""
    return [finding for finding in result if finding.name == name]


def only(result: list[Finding], name: str) -> Finding:
    """Return the only finding with a name."""
    (finding,) = with_name(result, name)
    return finding


def provision(url: str, change: dict[str, Any] | None = None) -> None:
    """Create the contract's streams, then change the configuration of EVENTS."""

    async def work() -> None:
        client = await connection.connect_once(url, name="test")
        try:
            await apply(client, Names())
            if change:
                current = (await request(client, "STREAM.INFO.EVENTS"))["config"]
                reply = await request(client, "STREAM.UPDATE.EVENTS", {**current, **change})
                assert "error" not in reply, reply
        finally:
            await connection.close(client)

    asyncio.run(work())


def test_a_complete_server_is_ok(tmp_path: Path) -> None:
    """A complete server has one ``ok`` finding per check, each with details."""
    monitoring = f"127.0.0.1:{free_port()}"
    with NatsServer(tmp_path, config=f"http: {monitoring}") as nats_server:
        provision(nats_server.url)
        result = findings(nats_server.url, nats_monitoring_url=f"http://{monitoring}")
    assert [(finding.name, finding.state) for finding in result] == [
        ("nats", "ok"),
        ("nats_version", "ok"),
        ("jetstream", "ok"),
        ("permissions", "ok"),
        ("streams", "ok"),
        ("storage", "ok"),
        ("rejected", "ok"),
        ("clock", "ok"),
        ("round_trip", "ok"),
        ("nats_store", "ok"),
    ]
    assert f"at {nats_server.url}: connected to server N" in result[0].text
    assert "may grow by 2,048 MiB" in only(result, "storage").text


def test_absent_streams_are_reported(nats_server: NatsServer) -> None:
    """Absent streams are reported but not created, and the clock cannot be compared without them."""
    for _ in range(2):
        result = findings(nats_server.url)
        assert [finding.text for finding in with_name(result, "streams")] == [
            f"stream {name} does not exist"
            for name in ("WATCHDOG", "EVENTS", "HEALTH", "LATEST", "CHECKPOINTS", "REJECTED", "HISTORY")
        ]
        assert only(result, "clock").state == "warn"
        assert "error" not in {finding.state for finding in result}


def test_streams_with_other_settings_are_reported(nats_server: NatsServer) -> None:
    """A setting that breaks a guarantee is an error; a different size is a warning, as it may be intended."""
    provision(nats_server.url, {"allow_direct": False, "max_age": 3600 * 10**9})
    breaks, sized = sorted(with_name(findings(nats_server.url), "streams"), key=lambda finding: finding.state)
    assert (breaks.state, breaks.hint) == ("error", "run 'tickertape streams apply'")
    assert "EVENTS has allow_direct" in breaks.text
    assert sized.state == "warn"
    assert sized.hint.startswith("left unchanged")


@pytest.mark.parametrize(
    ("offset", "state", "direction"),
    [
        (90.0, "error", "ahead of"),
        (-90.0, "error", "behind"),
        (2.5, "warn", "ahead of"),
        (0.0, "ok", "agree"),
    ],
)
def test_a_wrong_clock_is_reported(
    nats_server: NatsServer, offset: float, state: str, direction: str
) -> None:
    """A clock that differs from the server's is reported with the difference and its direction."""
    provision(nats_server.url)
    finding = only(findings(nats_server.url, lambda: time.time() + offset), "clock")
    assert finding.state == state, finding
    assert direction in finding.text
    if offset:
        assert abs(abs(offset) - float(finding.text.partition("machine is ")[2].split()[0])) < 1.0


def test_rejected_events_are_reported(nats_server: NatsServer) -> None:
    """Recently rejected events are a warning with their count, the newest one's age, and a hint."""
    provision(nats_server.url)

    async def reject() -> None:
        client = await connection.connect_once(nats_server.url, name="test")
        await client.jetstream().publish("rejected.log.info.x", b"nonsense")
        await connection.close(client)

    asyncio.run(reject())
    finding = only(findings(nats_server.url), "rejected")
    assert finding.state == "warn"
    assert finding.text.startswith("1 rejected event, the last ")
    assert "streams rejected" in finding.hint
    later = only(findings(nats_server.url, lambda: time.time() + 7200), "rejected")
    assert (later.state, later.hint) == ("ok", "")


def test_an_account_with_too_little_storage_is_reported(tmp_path: Path) -> None:
    """An account with too little storage for the streams is an error before NATS rejects events."""
    config = (
        f"accounts {{ A {{ jetstream: {{ max_file: %s }}, users: [{{ user: a, password: {SECRET} }}] }} }}"
    )
    with NatsServer(tmp_path, config=config % "3G") as server:
        url = server.url.replace("//", f"//a:{SECRET}@")
        provision(url)
        assert only(findings(url), "storage").state == "ok"
        server.stop()
        server.config = config % "1G"
        server.start()
        finding = only(findings(url), "storage")
        assert finding.state == "error"
        assert "of 954 MiB left" in finding.text


def test_a_user_without_access_to_account_information_gets_warnings(tmp_path: Path) -> None:
    """A user without access to account information gets warnings instead, and all other checks still run."""
    config = f"""authorization {{ users: [
        {{ user: all, password: {SECRET} }},
        {{ user: less, password: {SECRET}, permissions: {{ publish: {{ deny: ["$JS.API.INFO"] }} }} }}
    ] }}"""
    with NatsServer(tmp_path, config=config) as server:
        provision(server.url.replace("//", f"//all:{SECRET}@"))
        result = findings(server.url.replace("//", f"//less:{SECRET}@"))
        assert {finding.name: finding.state for finding in result} == {
            "nats": "ok",
            "nats_version": "ok",
            "jetstream": "warn",
            "permissions": "ok",
            "streams": "ok",
            "storage": "warn",
            "rejected": "ok",
            "clock": "ok",
            "round_trip": "ok",
            "nats_store": "warn",
        }


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ({}, "set --nats-monitoring-url"),
        ({"nats_monitoring_url": "http://127.0.0.1:1"}, "sets http or https"),
    ],
)
def test_a_store_that_cannot_be_checked_is_reported(
    nats_server: NatsServer, setting: dict[str, Any], hint: str
) -> None:
    """Without a monitoring port it is unknown whether events can be stored."""
    finding = only(findings(nats_server.url, **setting), "nats_store")
    assert finding.state == ("error" if setting else "warn")
    assert hint in finding.hint


def test_another_program_on_the_monitoring_port_is_reported(nats_server: NatsServer) -> None:
    """The client port of NATS answers, but not like a monitoring port."""
    address = nats_server.url.replace("nats://", "http://")
    finding = only(findings(nats_server.url, nats_monitoring_url=address), "nats_store")
    assert finding.state == "error"
    assert "--nats-monitoring-url" in finding.hint


def test_disabled_jetstream_is_reported(tmp_path: Path) -> None:
    """Disabled JetStream is an error whose hint says how to enable it."""
    with NatsServer(tmp_path, jetstream=False) as server:
        finding = only(findings(server.url), "jetstream")
        assert finding.state == "error"
        assert "-js" in finding.hint


def test_each_url_of_a_cluster_is_reported(tmp_path: Path) -> None:
    """Each URL of a cluster has its own finding, which shows no secret of the URL."""
    routes = [free_port(), free_port()]
    cluster = "cluster {{ name: EAST, listen: '127.0.0.1:{}', routes: ['nats://127.0.0.1:{}'] }}\n"
    dead = f"nats://u:{SECRET}@127.0.0.1:{free_port()}"
    config = [cluster.format(*order) + f"server_name: n{order[0]}" for order in (routes, routes[::-1])]
    with (
        NatsServer(tmp_path / "a", jetstream=False, config=config[0]) as first_server,
        NatsServer(tmp_path / "b", jetstream=False, config=config[1]) as second_server,
    ):
        first, second, third = with_name(findings(f"{first_server.url}, {second_server.url},{dead}"), "nats")
        assert first.text.endswith(f"at {first_server.url}: connected to server n{routes[0]} of cluster EAST")
        assert second.text.endswith(
            f"at {second_server.url}: connected to server n{routes[1]} of cluster EAST"
        )
        assert third.state == "error"
        assert "nats://***@127.0.0.1" in third.text
        assert third.hint


def test_servers_that_form_no_cluster_are_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    """Servers that do not form a cluster are an error: each would have streams of its own."""
    with NatsServer(tmp_path / "other") as other:
        result = with_name(findings(f"{nats_server.url},{other.url}"), "nats")
        assert [finding.state for finding in result] == ["ok", "ok", "error"]
        assert "2 servers do not form a cluster" in result[2].text


def test_a_wrong_password_is_reported_but_not_shown(tmp_path: Path) -> None:
    """A wrong password is the only finding, and it is not shown."""
    with NatsServer(tmp_path, config="authorization { user: app, password: right }") as server:
        (finding,) = findings(server.url, nats_user="app", nats_password=SECRET)
        assert finding.state == "error"
        assert "rejected the credentials" in finding.text
        assert finding.hint == "check the user and password, the nkey, or the .creds file"


def test_an_unreachable_server_is_reported_in_words() -> None:
    """A server that does not listen is reported in words, without an errno."""
    url = f"nats://127.0.0.1:{free_port()}"
    (finding,) = findings(url)
    # The rest of the message depends on the event loop.
    assert finding.text.startswith(f"NATS at {url} unreachable: Conn")
    assert finding.hint == "check that it is running and that --nats-url is correct"


def test_the_embedded_nats_need_not_run() -> None:
    """The embedded NATS server need not run, if its port is free."""
    port = free_port()
    finding = only(findings(None, nats_port=port), "nats")
    assert finding.state == "ok"
    assert "which is available" in finding.text
    assert "free port" in only(findings(None, nats_port=0), "nats").text


def test_another_nats_on_the_port_of_the_embedded_one_is_reported(nats_server: NatsServer) -> None:
    """Another NATS server on the port of the embedded one is an error, because the relay would not start."""
    finding = only(findings(None, nats_port=nats_server.port), "nats")
    assert finding.state == "error"
    assert finding.hint == f"connect to it with --nats-url {nats_server.url}, or choose another --nats-port"


def test_another_program_on_the_port_of_the_embedded_nats_is_reported() -> None:
    """Any other program on the port of the embedded server is an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = only(findings(None, nats_port=port), "nats")
    assert finding.state == "error"
    assert f"127.0.0.1:{port} is already in use" in finding.text
    assert "--nats-port" in finding.hint
