"""The feed in a real FastAPI or Starlette application under uvicorn, as its clients and its host see it."""

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import orjson
import pytest
from prometheus_client import CollectorRegistry
from tickertape.contracts.messages import (
    MAX_MESSAGE_BYTES,
    Bye,
    Error,
    Gap,
    Pong,
    Snapshot,
    Subscribed,
    Welcome,
)
from tickertape.relay.asgi import app
from tickertape.relay.settings import RelaySettings
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.clients import forge
from tests.support.clients.fake_link import gaps, only, shown
from tests.support.clients.feed_client import (
    PATIENCE,
    FeedClient,
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
from tests.support.paths import ROOT
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import Relay, environment, eventually
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape import tickertape_app
from tickertape.errors import ConfigurationError

JWT: Final = {"auth": "jwt", "jwt_algorithm": "HS256", "jwt_key": forge.SECRET.decode()}
SERVER_LIMITS: Final = [Subprotocol("tickertape.v1")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatsServer, Host]]:
    """Run one host for the read-only tests, with an open feed and one that requires tokens."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        mounts: dict[str, dict[str, Any]] = {
            "/feed": {"nats_url": server.url, "allowed_origins": ["https://app.example.com"]},
            "/secret": {"nats_url": server.url, **JWT},
        }
        with Host(mounts) as host:
            host.until_ready("/feed")
            host.until_ready("/secret")
            yield server, host


async def burst(nats_url: str, count: int, size: int = 0) -> None:
    """Publish numbered lines as fast as possible."""
    async with connection(nats_url) as nc:
        events = (line(f"{number}{' ' * bool(size)}{'x' * size}") for number in range(count))
        await publish_burst(nc, ((event.subject, event.encode()) for event in events))


async def rejected(url: str, **options: Any) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and JSON of a handshake that is rejected over HTTP."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, proxy=None, ping_interval=None, **options):
            pass
    answer = caught.value.response
    headers = {name.lower(): value for name, value in answer.headers.raw_items()}
    return answer.status_code, headers, orjson.loads(answer.body or b"null")


async def told_inside(url: str, **options: Any) -> list[tuple[str, Any]]:
    """Return types and codes of all messages, and the close code at the end."""
    found: list[tuple[str, Any]] = []
    async with asyncio.timeout(PATIENCE), connect(url, proxy=None, ping_interval=None, **options) as socket:
        try:
            while True:
                message = orjson.loads(await socket.recv())
                found.append((message["type"], message.get("code")))
        except ConnectionClosed:
            found.append(("close", socket.close_code))
    return found


async def arrived(url: str, seq: int) -> None:
    """Wait until a feed's snapshot includes an event."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with follow(url) as feed:
                if seq in shown(feed.messages):
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
def test_snapshot_then_live(nats_server: NatsServer, kind: str) -> None:
    """A mounted feed has filters, levels and re-subscription within a session, like a relay."""

    async def check() -> None:
        async with jetstream(nats_server.url) as js:
            first = await publish(js, status("a"))
            await arrived(host.ws(), first)
            async with follow(host.ws(), level="warn") as feed, follow(host.ws("/feed/")) as all_of_it:
                assert shown(feed.messages) == [first]
                assert only(feed.messages, Welcome)[0].limits.rate == 100
                await publish(js, line("no", "INFO"))
                await publish(js, line("größer – ∑", "ERROR"))
                await publish(js, status("b"))
                got = await feed.events(2)
                assert [event.get("message") for event in got] == ["größer – ∑", None]
                assert len(await all_of_it.events(3)) == 3
                await feed.send_message(type="subscribe", subjects=["log.*.y"])
                await feed.one(Snapshot)
                await publish(js, line("y", source="y"))
                await feed.events(3)
                await feed.send_message(type="ping", id="p")
                assert (await feed.read()).type == "pong"
                assert host.get("/health")[1]["feeds"]["/feed"] == {
                    "status": "ok", "upstream": "connected", "store": "unknown", "connections": 2,
                    "ready": True,
                }  # fmt: skip

    with Host({"/feed": {"nats_url": nats_server.url}}, kind=kind) as host:
        host.until_ready()
        run(check())


def test_the_rate_is_limited_and_drops_are_reported(nats_server: NatsServer) -> None:
    """Delivered and dropped events add up to those published."""

    async def check() -> None:
        async with follow(host.ws()) as feed:
            await burst(nats_server.url, 2_000)

            def dropped() -> int:
                return sum(gap.dropped or 0 for gap in only(feed.messages, Gap))

            await feed.until(lambda: len(feed.seqs()) + dropped() >= 2_000)
            assert len(feed.seqs()) + dropped() == 2_000
            assert 20 <= len(feed.seqs()) < 300
            assert {gap.reason for gap in only(feed.messages, Gap)} == {"rate"}

    with Host({"/feed": {"nats_url": nats_server.url, "client_rate": 30}}) as host:
        host.until_ready()
        run(check())


def test_a_cursor_outlives_a_killed_host(nats_server: NatsServer) -> None:
    """A client that resumes after the host was killed receives everything published meanwhile, once."""

    async def before() -> tuple[str, list[int]]:
        async with follow(host.ws(), mode="complete") as feed:
            publishing = asyncio.create_task(burst(nats_server.url, 3_000))
            await feed.events(500)
            await asyncio.to_thread(host.kill)
            with pytest.raises(ConnectionClosed):
                await feed.until(lambda: False)
            await publishing
            return feed.cursor, feed.seqs()

    async def after(cursor: str) -> list[int]:
        async with follow(host.ws(), mode="complete", cursor=cursor) as feed:
            assert only(feed.messages, Subscribed)[0].resumed
            await burst(nats_server.url, 100)
            await feed.until(lambda: feed.seqs()[-1:] == [3_100])
            assert gaps(feed.messages) == []
            return feed.seqs()

    with Host({"/feed": {"nats_url": nats_server.url}}) as host:
        host.until_ready()
        cursor, first = run(before())
        host.start()
        host.until_ready()
        assert first + run(after(cursor)) == list(range(1, 3_101))


def test_a_stalled_client_is_a_cursor_not_a_queue(nats_server: NatsServer) -> None:
    """A stalled client delays no other, costs no memory, and is told how much it missed."""
    total, stalled_ones = 20_000, 5

    async def check() -> None:
        # On a busy machine this client may be slow as well, so it asks for all events.
        async with follow(host.ws(), mode="complete") as feed:
            reading = asyncio.create_task(feed.events(total))
            await burst(nats_server.url, total, 400)
            await reading
            assert feed.seqs() == list(range(1, total + 1))
            assert gaps(feed.messages) == []

    with Host({"/feed": {"nats_url": nats_server.url, "client_rate": 0}}) as host:
        host.until_ready()
        before = host.resident_bytes
        stalled = [StalledClient((host.address, host.port), "/feed/ws") for _ in range(stalled_ones)]
        try:
            run(check())
            # The event log holds about 11 MB of these events; a queue per stalled client would as well.
            assert host.resident_bytes - before < 60_000_000
            for client in stalled:
                seqs, received = client.read(total)
                assert len(seqs) + sum(gap.dropped or 0 for gap in received) == total
                assert seqs == sorted(set(seqs))
                assert seqs[-1] == total
                assert {gap.reason for gap in received} == {"slow"}
        finally:
            for client in stalled:
                client.close()
        eventually(lambda: host.get("/feed/health")[1]["connections"] == 0, "all are gone")


def test_a_token_is_accepted_in_three_ways(shared: tuple[NatsServer, Host]) -> None:
    """A token is accepted as a header, as a subprotocol, and in the first message."""
    server, host = shared
    token = forge.token()

    async def check() -> None:
        url = host.ws("/secret/ws")
        async with (
            connect(
                url, proxy=None, ping_interval=None, additional_headers={"Authorization": f"Bearer {token}"}
            ) as header,
            connect(
                url,
                proxy=None,
                ping_interval=None,
                subprotocols=[*SERVER_LIMITS, Subprotocol(f"bearer.{token}")],
            ) as offered,
            connect(url, proxy=None, ping_interval=None) as late,
        ):
            assert offered.subprotocol == "tickertape.v1"
            await late.send(orjson.dumps({"type": "auth", "token": token}).decode())
            clients = [FeedClient(socket) for socket in (header, offered, late)]
            for client in clients:
                await client.until(lambda c=client: any(m.type == "snapshot" for m in c.messages))  # type: ignore[misc]
                assert only(client.messages, Welcome)[0].grant.subjects == ["log.>"]
            async with jetstream(server.url) as js:
                await publish(js, status("hidden"))
                await publish(js, line("seen"))
            for client in clients:
                assert await client.texts(1) == ["seen"]

    run(check())


def test_an_invalid_token_is_rejected_visibly_for_the_client(shared: tuple[NatsServer, Host]) -> None:
    """An invalid token is rejected with a status for programs, and with a close code for browsers."""
    _, host = shared

    async def check() -> None:
        url = host.ws("/secret/ws")
        code, headers, body = await rejected(url, additional_headers={"Authorization": "Bearer x.y.z"})
        assert (code, body["code"]) == (401, "unauthorized")
        assert headers["www-authenticate"] == "Bearer"
        bad = [*SERVER_LIMITS, Subprotocol("bearer.x.y.z")]
        expected = [("error", "unauthorized"), ("bye", 4401), ("close", 4401)]
        assert await told_inside(url, subprotocols=bad) == expected
        none = forge.token(values=forge.claims(tickertape={"subjects": ["system.>"]}))
        asks = {"Authorization": f"Bearer {none}"}
        code, _, body = await rejected(f"{url}?subjects=log.%3E", additional_headers=asks)
        assert (code, body["code"]) == (403, "forbidden")
        async with connect(url, proxy=None, ping_interval=None) as socket:
            client = FeedClient(socket)
            await client.send_message(type="ping", id="1")
            assert (await client.one(Error)).code == "unauthorized"
            assert (await client.one(Bye)).code == 4401
            assert await client.closed() == 4401

    run(check())


def test_pages_of_other_sites_are_rejected(shared: tuple[NatsServer, Host]) -> None:
    """Only the host's own pages and those of listed origins may connect, whatever token they offer."""
    _, host = shared

    async def check() -> None:
        url = host.ws()
        code, _, body = await rejected(
            url, subprotocols=SERVER_LIMITS, additional_headers={"Origin": "https://evil.com"}
        )
        assert (code, body["code"]) == (403, "forbidden")
        for origin in ("https://app.example.com", host.url()):
            async with connect(
                url, proxy=None, ping_interval=None, additional_headers={"Origin": origin}
            ) as socket:
                assert isinstance(await FeedClient(socket).read(), Welcome)
        # A name that an attacker has pointed at this machine.
        rebound = f"ws://rebound.example.com:{host.port}/feed/ws"
        code, _, _ = await rejected(rebound, host=host.address, port=host.port)
        assert code == 403

    run(check())


async def flooded(feed: FeedClient) -> Bye:
    """Send bursts of pings until one burst arrives within a second, however busy the machine is."""
    while True:
        with contextlib.suppress(ConnectionClosed):
            for number in range(250):
                await feed.socket.send(f'{{"type":"ping","id":{number}}}')
        while True:
            message = await feed.read()
            if isinstance(message, Bye):
                return message
            if isinstance(message, Pong) and message.id == 249:
                break


def test_mistakes_have_close_codes(shared: tuple[NatsServer, Host]) -> None:
    """Invalid queries, paths, subprotocols, sizes, binary messages and floods have a close code each."""
    _, host = shared

    async def check() -> None:
        url = host.ws()
        assert (await rejected(f"{url}?level=LOUD"))[0] == 400
        inside = await told_inside(f"{url}?level=LOUD", subprotocols=SERVER_LIMITS)
        assert inside == [("error", "bad_level"), ("bye", 4409), ("close", 4409)]
        assert (await rejected(f"{url}?subject=log.error.>"))[0] == 400
        inside = await told_inside(f"{url}?subject=log.error.>", subprotocols=SERVER_LIMITS)
        assert inside == [("error", "bad_query"), ("bye", 4400), ("close", 4400)]
        assert (await rejected(host.ws("/feed/nowhere")))[0] == 404
        assert (await rejected(url, subprotocols=[Subprotocol("chat")]))[0] == 400
        for message, code in (
            (b"binary", 1003),
            ("x" * (MAX_MESSAGE_BYTES + 1), 1009),
            ("x" * MAX_MESSAGE_BYTES, 4400),
            ("nonsense", 4400),
        ):
            async with follow(url) as feed:
                await feed.socket.send(message)
                assert (await feed.one(Bye)).code == code
                assert await feed.closed() == code
        async with follow(url) as feed:
            assert (await flooded(feed)).code == 4429
            assert await feed.closed() == 4429

    run(check())
    eventually(lambda: host.get("/feed/health")[1]["connections"] == 0, "nobody is left")


def test_pages_below_the_mount(shared: tuple[NatsServer, Host]) -> None:
    """History, health, and an error for a missing upgrade are served below the mount."""
    server, host = shared

    async def fill() -> int:
        async with jetstream(server.url) as js:
            return await publish(js, line("kept"))

    seq = run(fill())

    def newest() -> Any:
        return host.get("/feed/events?limit=1&order=newest")[1]["events"]

    eventually(lambda: [item["seq"] for item in newest()] == [seq], "history has it")
    assert host.get("/feed/health")[0] == 200
    assert host.get("/feed/ws")[0] == 426
    assert host.get("/feed/")[0] == 426
    for path, code in (("/feed/nowhere", 404), ("/feed/events?subject=log.error.>", 400)):
        answer = host.get(path)
        assert answer[0] == code
        assert set(answer[1]) == {"code", "message"}
    assert "did you mean 'subjects'" in host.get("/feed/events?subject=log.error.>")[1]["message"]
    assert host.get("/secret/events")[0] == 401
    assert host.get("/secret/events", Authorization=f"Bearer {forge.token()}")[0] == 200
    assert host.get("/feed/events", Origin="https://evil.com")[0] == 403


def test_two_feeds_are_separate_deployments(nats_server: NatsServer) -> None:
    """Two mounts with different prefixes are two separate deployments."""

    async def check() -> None:
        async with (
            jetstream(nats_server.url) as js,
            follow(host.ws("/blue/ws")) as blue,
            follow(host.ws("/green/deep/ws")) as green,
        ):
            await publish(js, line("for blue"), prefix="blue.")
            await publish(js, line("for green"), prefix="green.")
            assert await blue.texts(1) == ["for blue"]
            assert await green.texts(1) == ["for green"]

    mounts = {
        "/blue": {"nats_url": nats_server.url, "subject_prefix": "blue"},
        "/green/deep": {"nats_url": nats_server.url, "subject_prefix": "green"},
    }
    with Host(mounts) as host:
        host.until_ready("/blue")
        host.until_ready("/green/deep")
        run(check())
        assert host.get("/health")[1]["feeds"].keys() == {"/blue", "/green/deep"}
        host.stop()
        assert "left: []\n" in host.log


def test_a_shutdown_sends_bye_and_leaves_nothing(nats_server: NatsServer) -> None:
    """On shutdown every client receives ``bye`` with a delay, and no task, handler or connection is left."""

    async def leave() -> tuple[Bye, int]:
        async with follow(host.ws()) as feed:
            here.release()
            return await feed.one(Bye), await feed.closed()

    async def check() -> list[tuple[Bye, int]]:
        clients = [asyncio.create_task(leave()) for _ in range(20)]
        for _ in clients:
            await here.acquire()
        stopping = asyncio.create_task(asyncio.to_thread(host.stop))
        found = await asyncio.gather(*clients)
        await stopping
        return list(found)

    with Host({"/feed": {"nats_url": nats_server.url}}) as host:
        host.until_ready()
        here = asyncio.Semaphore(0)
        found = run(check())
        assert {(bye.code, code) for bye, code in found} == {(1001, 1001)}
        waits = {bye.retry_after_ms for bye, _ in found}
        assert len(waits) == 20
        assert all(wait is not None and 500 <= wait <= 5_500 for wait in waits)
        assert "left: []\n" in host.log
        assert "handler of: uvicorn.server\n" in host.log
        assert not [text for text in host.log if re.search("Traceback|destroyed|never", text)], host.log


def test_a_host_without_the_lifespan_starts_the_feed_at_the_first_client(nats_server: NatsServer) -> None:
    """Without the lifespan the feed starts with its first client, logs that once, and still sends ``bye`` on
    a signal.
    """

    async def check() -> None:
        async with follow(host.ws()) as feed, follow(host.ws()):
            async with jetstream(nats_server.url) as js:
                await publish(js, line("x"))
            assert await feed.texts(1) == ["x"]
            stopping = asyncio.create_task(asyncio.to_thread(host.stop))
            assert (await feed.one(Bye)).code == 1001
        await stopping

    with Host({"/feed": {"nats_url": nats_server.url}}, lifespan=False) as host:
        assert host.get("/health")[1]["feeds"]["/feed"]["ready"] is False
        run(check())
        assert sum("starting the feed with its first client" in text for text in host.log) == 1


def test_the_host_does_not_depend_on_nats(nats_server: NatsServer) -> None:
    """The host starts, serves and stops while NATS is unreachable; clients are notified and stay
    connected.
    """
    with Host({"/feed": {"nats_url": f"nats://127.0.0.1:{free_port()}"}}) as host:
        assert host.get("/health")[1]["feeds"]["/feed"]["status"] == "unavailable"
        code, _, body = run(rejected(host.ws()))
        assert (code, body["code"]) == (503, "unavailable")
        inside = run(told_inside(host.ws(), subprotocols=SERVER_LIMITS))
        assert inside == [("error", "unavailable"), ("bye", 4503), ("close", 4503)]
        assert host.get("/feed/health")[0] == 503
        host.stop()
        assert "left: []\n" in host.log

    async def outage() -> None:
        async with follow(host.ws()) as feed:
            await asyncio.to_thread(nats_server.stop)
            await feed.until(lambda: getattr(feed.messages[-1], "state", "") == "disconnected")
            assert host.get("/health")[1]["feeds"]["/feed"]["upstream"] == "disconnected"
            await asyncio.to_thread(nats_server.start)
            await feed.until(lambda: getattr(feed.messages[-1], "state", "") == "connected")
            async with jetstream(nats_server.url) as js:
                await publish(js, line("after"))
            assert await feed.texts(1) == ["after"]

    with Host({"/feed": {"nats_url": nats_server.url}}) as host:
        host.until_ready()
        run(outage())


def test_a_feed_that_cannot_start_is_logged_and_retried(tmp_path: Path) -> None:
    """Without JetStream the host keeps running, and the feed starts once JetStream is enabled."""
    with (
        NatsServer(tmp_path / "nats", jetstream=False) as server,
        Host({"/feed": {"nats_url": server.url}}) as host,
    ):
        eventually(lambda: any("the feed is closed" in text for text in host.log), "it is said")
        assert host.get("/health")[0] == 200
        server.stop()
        server.jetstream = True
        server.start()
        host.until_ready()


def test_an_open_feed_is_closed_to_others(nats_server: NatsServer) -> None:
    """Without tokens the feed serves loopback addresses only, unless it is configured as insecure."""
    address = own_address()
    mounts: dict[str, dict[str, Any]] = {
        "/feed": {"nats_url": nats_server.url},
        "/open": {"nats_url": nats_server.url, "insecure": True},
    }

    async def check() -> None:
        code, _, body = await rejected(host.ws())
        assert (code, body["code"]) == (403, "forbidden")
        async with follow(host.ws("/open/ws")):
            pass

    with Host(mounts, address=address) as host:
        host.until_ready("/open")
        assert host.get("/feed/events")[0] == 403
        run(check())
        assert sum("the feed is closed on" in text for text in host.log) == 1


def own_address() -> str:
    """Return an address of this machine other than loopback."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback")
        return str(probe.getsockname()[0])


def test_the_example_runs_as_it_stands(nats_server: NatsServer, tmp_path: Path) -> None:
    """The example in the module's docstring runs with uvicorn from the command line."""
    assert app.__doc__
    example = re.search(r"FastAPI::\n\n((?:    .*\n|\n)+)", app.__doc__)
    assert example is not None
    text = re.sub("^    ", "", example[1], flags=re.MULTILINE)
    assert "nats://127.0.0.1:4222" in text
    assert f"```python\n{text.strip()}\n```" in (ROOT / "README.md").read_text()
    (tmp_path / "example.py").write_text(text.replace("nats://127.0.0.1:4222", nats_server.url))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "example:app", "--port", str(port)],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    watching = Host({})
    watching.port = port

    def ready() -> bool:
        try:
            return bool(watching.get("/health")[1]["feed"]["status"] == "ok")
        except OSError:
            return False

    async def check() -> None:
        async with follow(f"ws://127.0.0.1:{port}/feed/ws") as feed, jetstream(nats_server.url) as js:
            await publish(js, line("x"))
            assert await feed.texts(1) == ["x"]
            process.terminate()
            assert (await feed.one(Bye)).code == 1001

    try:
        eventually(ready, "the example is ready")
        run(check())
        process.wait(PATIENCE)
    finally:
        process.kill()
        assert b"Traceback" not in process.communicate()[0]


def test_the_host_shows_the_metrics_of_its_feed(nats_server: NatsServer) -> None:
    """The host can export the feed's metrics beside its own, under a relay's names."""

    def metrics(url: str) -> str:
        with urlopen(url, timeout=PATIENCE) as page:
            return str(page.read().decode())

    def families(text: str) -> set[str]:
        return set(re.findall(r"^# TYPE (tickertape_.*)", text, re.MULTILINE))

    async def check() -> None:
        async with follow(host.ws()) as feed, jetstream(nats_server.url) as js:
            await publish(js, line("x"))
            assert await feed.texts(1) == ["x"]
            text = metrics(host.url("/metrics"))
            for sample in (
                "connections 1.0",
                'handshakes_total{result="accepted"} 1.0',
                "nats_connected 1.0",
            ):
                assert f"\ntickertape_{sample}\n" in text
            assert re.search(r"^tickertape_events_delivered_total [1-9]", text, re.MULTILINE)
            assert "\nprocess_resident_memory_bytes " in text
            assert families(text) == families(metrics(f"{relay.ops_url}/metrics"))

    with (
        Relay(nats_server.url) as relay,
        Host({"/feed": {"nats_url": nats_server.url}}, metrics="/feed") as host,
    ):
        host.until_ready()
        assert "\ntickertape_connections 0.0\n" in metrics(host.url("/metrics"))
        run(check())
        eventually(
            lambda: "\ntickertape_connections 0.0\n" in metrics(host.url("/metrics")), "the client is gone"
        )


def test_metrics_of_a_feed_need_a_registry_of_their_own() -> None:
    """A second feed needs its own registry, because names repeat; a feed that is not running exports
    nothing.
    """
    mine, others = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    first, second = tickertape_app(), tickertape_app()
    mine.register(first.collector)
    with pytest.raises(ValueError, match="tickertape_build"):
        mine.register(second.collector)
    others.register(second.collector)
    assert list(mine.collect()) == []
    mine.unregister(first.collector)
    mine.register(second.collector)


def test_settings_are_validated_on_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are validated on construction, not with the first client."""
    with pytest.raises(ValueError, match="nothing-of-ours"):
        tickertape_app("nothing-of-ours:4222")
    with pytest.raises(ConfigurationError, match="jwt_algorithm"):
        tickertape_app(auth="jwt")
    with pytest.raises(ValueError, match="within"):
        tickertape_app(subjects=["nowhere.>"])
    with pytest.raises(TypeError, match="client_rate"):
        tickertape_app(client_rate=1, settings=RelaySettings())
    assert "4222" in repr(tickertape_app(settings=RelaySettings()))
    monkeypatch.setenv("TICKERTAPE_OF_THE_HOST", "x")
    tickertape_app()
    monkeypatch.setenv("TICKERTAPE_JWT_AUDIANCE", "x")
    with pytest.raises(ValueError, match="resembles TICKERTAPE_JWT_AUDIENCE"):
        tickertape_app()
