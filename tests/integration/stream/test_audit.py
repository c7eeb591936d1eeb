"""The audit stream of real relays: who connected, what was rejected, and that nothing is lost in silence."""

import asyncio
import contextlib
import getpass
import json
import signal
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jsonschema
import pytest
from nats.js.errors import NotFoundError
from tickertape.contracts.audit import Record, Reloaded
from tickertape.contracts.messages import Bye
from tickertape.relay.audit import audit_log
from tickertape.relay.audit.audit_log import AuditLog
from websockets.exceptions import InvalidStatus

from tests.support.clients import forge
from tests.support.clients.feed_client import connection, follow, jetstream, publish, run, status
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.deployed_nats import Deployed, deployed
from tests.support.servers.nats_server import NatsServer
from tickertape.errors import EXIT_DENIED
from tickertape.names import Names

SCHEMA = json.loads((ROOT / "contracts" / "schema" / "audit.schema.json").read_text())
JWT = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": forge.SECRET.decode()}


def token(**more: Any) -> str:
    """Return a token of alice."""
    values = forge.claims(sub="alice", jti="id-7", exp=time.time() + 600, **more)
    return forge.token("HS256", values, kid="key-1")


def records(url: str, *options: str) -> list[dict[str, Any]]:
    """Return what ``streams audit`` prints, each valid by the schema and without a token."""
    done = run_command("streams", "audit", "--nats-url", url, *options)
    assert done.returncode == 0, done.stderr
    assert "eyJ" not in done.stdout
    found = [json.loads(text) for text in done.stdout.splitlines()]
    for record in found:
        jsonschema.validate(record, SCHEMA)
    return found


def fetch(relay: Relay, token: str, path: str = "/events") -> int:
    """Return the status of a request with a token."""
    request = Request(
        f"{relay.url}{path}", headers={"Authorization": f"Bearer {token}", "User-Agent": "audited"}
    )
    try:
        with urlopen(request, timeout=PATIENCE) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


def test_who_connected_and_what_was_rejected(nats_server: NatsServer, tmp_path: Path) -> None:
    """Sessions, reads, rejections, revocations and reloads are recorded, by every worker."""
    revoked = tmp_path / "revoked"
    revoked.write_text("# none\n")
    options = ("--auth", "jwt", "--jwt-revoked-file", str(revoked), "--audit", "--workers", "2")
    forged = forge.token("HS256", forge.claims(exp=time.time() + 600), name="other")

    async def session(relay: Relay, *, revoke: bool) -> int:
        async with follow(relay.ws_url, token=token(), live=not revoke) as client:
            if not revoke:
                return 1000
            draft = tmp_path / "new"
            draft.write_text("jti:id-7\n")
            draft.replace(revoked)
            bye = await client.one(Bye)
            return int(bye.code)

    with Relay(nats_server.url, *options, **JWT) as relay:
        assert run(session(relay, revoke=False)) == 1000
        assert [fetch(relay, token()) for _ in range(3)] == [200] * 3
        assert [fetch(relay, forged) for _ in range(20)] == [401] * 20
        assert fetch(relay, forge.token("HS256", forge.claims(exp=1))) == 401
        assert run(session(relay, revoke=True)) == 4401
        relay.signal(signal.SIGHUP)
        relay.until_logged("reload: ")
        assert relay.stop() == 0
    found = records(nats_server.url)
    started = [record for record in found if record["record"] == "session_started"]
    for record in started:
        assert record["subject"], record["token_id"] == ("alice", "id-7")
        assert (record["key_id"], record["subjects"]) == ("key-1", ["log.>"])
        assert (record["address"], record["transport"]) == ("127.0.0.1", "websocket")
        assert "websockets" in record["user_agent"]
    ended = {record["session"]: record for record in found if record["record"] == "session_ended"}
    assert [ended[record["session"]]["code"] for record in started] == [1000, 4401]
    assert all(0 < record["bytes_sent"] < 100_000 for record in ended.values())
    reads = [record for record in found if record["record"] == "history_read"]
    assert sum(record["count"] for record in reads) == 3
    assert {(record["subject"], record["user_agent"]) for record in reads} == {("alice", "audited")}
    counts: dict[str, int] = {}
    for record in found:
        if record["record"] == "rejected" and record["address"] == "127.0.0.1":
            counts[record["reason"]] = counts.get(record["reason"], 0) + record["count"]
    assert counts["signature"] == 20
    assert counts["expired"] == 1
    assert sum(record["sessions"] for record in found if record["record"] == "revoked") == 1
    assert any(record["record"] == "reloaded" and record["read"] for record in found)
    assert {record["source"].rpartition("/")[2] for record in found} == {"0", "1"}


def test_limits_are_recorded_with_their_clients(nats_server: NatsServer) -> None:
    """A client beyond a limit, or of another site, is recorded by the name of the limit and its address."""
    limits = ("--max-address-connections", "2", "--max-subject-connections", "1", "--message-rate", "20")
    options = ("--auth", "jwt", "--audit", "--unlimited-addresses", "", *limits)
    with Relay(nats_server.url, *options, **JWT) as relay:

        async def visit() -> None:
            async with follow(relay.ws_url, token=token(), source="127.0.0.7") as client:
                async with follow(relay.ws_url, token=token(), source="127.0.0.8", live=False) as other:
                    assert (await other.one(Bye)).code == 4429
                async with follow(relay.ws_url, live=False, source="127.0.0.7"):
                    with contextlib.suppress(InvalidStatus, ConnectionError):
                        async with follow(relay.ws_url, live=False, source="127.0.0.7"):
                            pass
                for _ in range(100):
                    await client.socket.send('{"type":"ping","id":"1"}')
                assert (await client.one(Bye)).code == 4429

        run(visit())
        request = Request(f"{relay.url}/events", headers={"Origin": "https://other.example.com"})
        with pytest.raises(HTTPError, match="403"):
            urlopen(request, timeout=PATIENCE)
        assert relay.stop() == 0  # which stores what was counted last
    counts = {
        (record["reason"], record["address"]): record["count"]
        for record in records(nats_server.url)
        if record["record"] == "rejected"
    }
    assert counts["subject_connections", "127.0.0.8"] == 1
    assert counts["address_connections", "127.0.0.7"] >= 1
    assert counts["message_rate", "127.0.0.7"] == 1
    assert counts["origin_not_allowed", "127.0.0.1"] == 1


def test_a_mounted_feed_is_audited(nats_server: NatsServer) -> None:
    """A feed in a host application records its sessions, too."""
    mounts: dict[str, dict[str, Any]] = {"/feed": {"nats_url": nats_server.url, "audit": True}}
    with Host(mounts) as host:
        host.until_ready("/feed")

        async def visit() -> None:
            async with follow(host.ws()):
                pass

        run(visit())
        eventually(lambda: len(records(nats_server.url)) == 2, "both records are stored")
    assert [(r["record"], r.get("transport")) for r in records(nats_server.url)] == [
        ("session_started", "asgi"),
        ("session_ended", None),
    ]


def test_nothing_is_audited_unless_asked(nats_server: NatsServer) -> None:
    """Without ``--audit`` there is no stream, and the command says how to create it."""
    with Relay(nats_server.url):
        pass
    done = run_command("streams", "audit", "--nats-url", nats_server.url)
    assert done.returncode == 1
    assert "streams apply --audit" in done.stderr


def test_records_outlive_an_outage(tmp_path: Path) -> None:
    """Records written while NATS is down are stored afterwards, once each; no client notices."""
    with NatsServer(tmp_path) as server, Relay(server.url, "--auth", "jwt", "--audit", **JWT) as relay:

        async def visit(*, live: bool) -> None:
            async with follow(relay.ws_url, token=token(), live=live):
                pass

        run(visit(live=True))
        server.kill()
        for _ in range(5):
            run(visit(live=False))
        server.start()
        eventually(lambda: len(records(server.url)) == 12, "all records are stored")
        assert not [record for record in records(server.url) if record["record"] == "lost"]


def test_lost_records_are_counted_in_a_later_one(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What did not fit into memory is counted in the stream, and stored plus lost is what was written."""
    monkeypatch.setattr(audit_log, "MAX_QUEUED_BYTES", 20_000)

    async def scenario() -> AuditLog:
        log = AuditLog(Names(), "desk", time.time)
        for number in range(1_000):
            log.write(_reloaded(log, number))
        async with connection(nats_server.url) as nc:
            running = asyncio.create_task(log.run(nc))
            while log.queued():
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return log

    log = run(scenario())
    found = records(nats_server.url)
    (lost,) = [record for record in found if record["record"] == "lost"]
    assert lost["count"] == log.lost > 0
    assert len(found) - 1 + lost["count"] == 1_000
    assert log.stored == len(found)


def _reloaded(log: AuditLog, number: int) -> Record:
    return Reloaded(**log.fields(), read=[f"number {number}"], failed=[])


@pytest.fixture
def least(tmp_path: Path) -> Any:
    """Run the deployment's server."""
    with deployed(tmp_path) as found:
        yield found


def test_a_relay_may_write_records_but_not_read_or_delete_them(least: Deployed) -> None:
    """With the permissions of the deployment, an operator reads the stream, and the relay writes it."""
    operator = least.options("operator")
    done = run_command("streams", "apply", "--audit", "--nats-url", least.url, *operator)
    assert (done.returncode, "stream AUDIT created" in done.stdout) == (0, True)
    done = run_command("streams", "apply", "--audit", "--nats-url", least.url, *operator)
    assert done.stdout == "all streams match the contract\n"
    with Relay(least.url, *least.options("relay"), "--audit") as relay:

        async def visit() -> None:
            async with follow(relay.ws_url, subjects="audit.>", live=False) as client:
                await client.read()

        run(visit())
        eventually(lambda: len(records(least.url, *operator)) == 2, "both records are stored")
        assert not least.violations
    done = run_command("streams", "audit", "--nats-url", least.url, *least.options("relay"))
    assert done.returncode == EXIT_DENIED
    assert least.violations


def test_strange_records_do_not_reach_the_terminal(nats_server: NatsServer) -> None:
    """A program that may write records may write anything, of which the command prints one safe line each."""
    assert run_command("streams", "apply", "--audit", "--nats-url", nats_server.url).returncode == 0

    async def write() -> None:
        async with connection(nats_server.url) as nc:
            for data in (b"\x1b[31m\xff\n\x00", b'{"a":\n"\xc2\x9b\xe2\x80\xae"}', b""):
                await nc.jetstream().publish("audit.x.y", data)

    run(write())
    done = run_command("streams", "audit", "--nats-url", nats_server.url)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[1]) == {"a": "\x9b\u202e"}


def test_a_silence_is_recorded_or_does_not_happen(nats_server: NatsServer) -> None:
    """With ``--audit``, a gateway is silenced only if it is recorded who did it."""
    url = ("--nats-url", nats_server.url)
    silence = ("monitor", "silence", "main", "--reason", "exchange test", "--audit", *url)
    assert run_command("streams", "apply", *url).returncode == 0

    async def stored() -> bool:
        async with jetstream(nats_server.url) as js:
            try:
                await js.get_last_msg("WATCHDOG", "watchdog.silenced.ctp.main")
            except NotFoundError:
                return False
            return True

    async def report() -> None:
        async with jetstream(nats_server.url) as js:
            await publish(js, status("main"))

    run(report())
    done = run_command(*silence)
    assert (done.returncode, run(stored())) == (1, False)
    assert "the silence cannot be recorded in the stream AUDIT" in done.stderr
    assert run_command("streams", "apply", "--audit", *url).returncode == 0
    done = run_command(*silence)
    assert (done.returncode, run(stored())) == (0, True)
    (record,) = records(nats_server.url)
    assert (record["record"], record["gateway"], record["reason"]) == (
        "silenced",
        "ctp/main",
        "exchange test",
    )
    assert record["by"] == getpass.getuser()
