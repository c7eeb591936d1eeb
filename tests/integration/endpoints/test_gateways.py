"""History of gateways: it outlives EVENTS and relays, and a relay works without it."""

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
from tickertape.contracts.events import GatewayStatusChange, Status, format_time
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.gateway.model import Silence

from tests.support.clients.feed_client import PATIENCE, jetstream, publish, run
from tests.support.clients.forge import SECRET, token
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.deployed_nats import ask, deployed
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import streams

START = 1_700_000_000


def change(second: int, current: Status, gateway: str = "a") -> GatewayStatusChange:
    """Return a status with a time of its own."""
    return GatewayStatusChange(
        timestamp=format_time(START + second),
        gateway_id=gateway,
        gateway_type="ctp",
        previous_status=Status.UNKNOWN,
        current_status=current,
    )


def get(relay: Relay, path: str) -> tuple[int, Any]:
    """Return status and body of a response."""
    try:
        with urlopen(relay.url + path, timeout=PATIENCE) as page:
            return page.status, orjson.loads(page.read())
    except HTTPError as error:
        with error:
            return error.code, orjson.loads(error.read())


def statuses(relay: Relay, gateway: str = "a") -> list[str]:
    """Return the statuses of a gateway; none while there is no history."""
    code, page = get(relay, f"/gateways/ctp/{gateway}/history?since=9999d")
    return [one["status"] for one in page["statuses"]] if code == 200 else []


def test_history_outlives_events(nats_server: NatsServer) -> None:
    """Statuses remain after EVENTS was purged, and after it was created again; live ones follow."""

    async def send(*changes: GatewayStatusChange) -> None:
        async with jetstream(nats_server.url) as js:
            for one in changes:
                await publish(js, one)

    async def await_copies(count: int) -> None:
        async with jetstream(nats_server.url) as js, asyncio.timeout(PATIENCE):
            while (await js.stream_info("HISTORY")).state.messages < count:
                await asyncio.sleep(0.02)

    async def purge() -> None:
        async with jetstream(nats_server.url) as js:
            await js.purge_stream("EVENTS")
            # The status of a gateway that has not changed since HISTORY retains events is in LATEST only.
            await js.purge_stream("HISTORY", subject="gateway.status.ctp.quiet")

    async def delete() -> None:
        async with jetstream(nats_server.url) as js:
            await js.delete_stream("EVENTS")

    with Relay(nats_server.url) as relay:
        # The second one was stored first: the order is that of the timestamps.
        run(
            send(
                change(20, Status.UNHEALTHY), change(10, Status.HEALTHY), change(5, Status.DEGRADED, "quiet")
            )
        )
        eventually(lambda: statuses(relay) == ["HEALTHY", "UNHEALTHY"], "live events are in the history")
        run(await_copies(3))
        relay.stop()
        run(purge())
        relay.start()
        eventually(lambda: statuses(relay) == ["HEALTHY", "UNHEALTHY"], "the history is read from HISTORY")
        eventually(lambda: statuses(relay, "quiet") == ["DEGRADED"], "the state is read from LATEST")
        relay.stop()
        run(delete())
        relay.start()
        run(send(change(30, Status.HEALTHY)))
        run(await_copies(3))
        relay.stop()
        relay.start()
        expected = ["HEALTHY", "UNHEALTHY", "HEALTHY"]
        eventually(lambda: statuses(relay) == expected, "HISTORY copies from the new EVENTS")
        assert get(relay, "/gateways/ctp/zzz/history")[0] == 404
        report = run_command("report", "--url", relay.ws_url, "--since", format_time(START), "--csv")
        assert report.returncode == 0, report.stderr
        assert report.stdout.splitlines()[1].startswith("ctp,a,HEALTHY,")
    gone = run_command("report", "--url", relay.ws_url)
    assert gone.returncode == 1
    assert "is unreachable: connection refused; check --url" in gone.stderr


def test_a_relay_works_without_history(tmp_path: Path) -> None:
    """A relay that may not create HISTORY is ready, names the stream, and reads it once it exists."""
    with deployed(tmp_path) as nats:
        nats.command_apply()

        async def prepare() -> None:
            async with nats.client("operator") as (client, _):
                await streams.request(client, "STREAM.DELETE.HISTORY")
            async with nats.client("monitor") as (client, _):
                await ask(client, "gateway.status.ctp.a", change(1, Status.HEALTHY).encode())

        run(prepare())
        with Relay(nats.url, *nats.options("relay")) as relay:
            eventually(lambda: "HISTORY" in get(relay, "/gateways")[1].get("message", ""), "it is missing")
            code, body = get(relay, "/gateways")
            assert (code, body["code"]) == (503, "unavailable")
            assert any(
                "gateways have no history: stream HISTORY does not exist" in line for line in relay.log
            )
            found = run_command("check", "--nats-url", nats.url, *nats.options("relay"))
            assert "stream HISTORY does not exist" in found.stdout
            nats.command_apply()
            eventually(lambda: statuses(relay) == ["HEALTHY"], "HISTORY is read")
        assert nats.violations == [one for one in nats.violations if "STREAM.CREATE.HISTORY" in one]


def test_a_relay_without_gateways_has_no_history(nats_server: NatsServer) -> None:
    """A relay whose subjects exclude gateways shows none."""

    async def send() -> None:
        async with jetstream(nats_server.url) as js:
            await streams.provision(js._nc, Names())
            await publish(js, change(1, Status.HEALTHY))

    run(send())
    with Relay(nats_server.url, "--subjects", "log.>") as relay:
        eventually(lambda: get(relay, "/gateways")[0] == 200, "there is nothing to load")
        assert get(relay, "/gateways")[1]["gateways"] == []


def test_a_gateway_is_silenced_over_http(tmp_path: Path) -> None:
    """With the right in NATS and in the token, a silence is stored where the monitors read it."""
    claims = {"sub": "alice", "exp": int(time.time()) + 3600}
    grant = {"subjects": ["gateway.>"]}
    reader = token(values={**claims, "tickertape": grant})
    operator = token(values={**claims, "tickertape": {**grant, "control": True}})
    keys = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": SECRET.decode()}

    def silence(relay: Relay, bearer: str, method: str = "POST", query: str = "?reason=moving") -> int:
        request = Request(f"{relay.url}/gateways/ctp/a/silence{query}", method=method)
        request.add_header("Authorization", f"Bearer {bearer}")
        try:
            with urlopen(request, timeout=PATIENCE) as page:
                return int(page.status)
        except HTTPError as error:
            with error:
                return error.code

    async def publish_status() -> None:
        async with nats.client("monitor") as (client, _):
            await ask(client, "gateway.status.ctp.a", change(1, Status.HEALTHY).encode())

    async def read_silence() -> Silence | None:
        async with nats.client("monitor") as (client, _):
            return (await silences.read(client, Names())).get("gateway.status.ctp.a")

    with deployed(tmp_path) as nats:
        nats.command_apply()
        run(publish_status())
        options = [*nats.options("relay"), "--auth", "jwt", "--control"]
        with Relay(nats.url, *options, **keys) as relay:
            eventually(lambda: silence(relay, operator) == 503, "NATS denies it")
            assert run(read_silence()) is None
            permissions = tmp_path / "nats" / "permissions.conf"
            text = permissions.read_text()
            permissions.write_text(text.replace('# "watchdog.silenced.>"', '"watchdog.silenced.>"'))
            nats.server.reload()
            eventually(lambda: silence(relay, operator) == 200, "NATS allows it")
            found = run(read_silence())
            assert found is not None
            assert (found.reason, found.by) == ("moving", "alice")
            assert silence(relay, reader) == 403
            assert silence(relay, operator, "DELETE", "") == 200
            ended = run(read_silence())
            assert ended is not None
            assert ended.until < found.until
