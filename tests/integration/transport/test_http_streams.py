"""The HTTP streams of a relay: the same messages as on the WebSocket, and what HTTP adds to them."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from tickertape.contracts.events import Status

from tests.integration.stream.test_audit import records
from tests.support.clients import forge
from tests.support.clients.attacker import answer_of, count, get, raw, read_all, read_until
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run, status
from tests.support.clients.stream_client import Rejected, StreamClient, stream
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

PATHS = ["/sse", "/stream"]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for all tests that do not stop it."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    with server, Relay(server.url, "--client-rate", "0") as running:
        yield running


async def started(client: StreamClient) -> StreamClient:
    """Read up to the end of the start of a session."""
    if not (await client.one("subscribed"))["resumed"]:
        while not (await client.one("snapshot"))["done"]:
            pass
    return client


async def say(relay: Relay, *texts: str) -> None:
    """Publish log lines."""
    async with jetstream(relay.nats_url) as js:
        for text in texts:
            await publish(js, line(text))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gzip", [False, True])
def test_the_messages_are_those_of_the_websocket(relay: Relay, path: str, gzip: bool) -> None:
    """Each format carries the messages of the WebSocket, compressed or not, with large batches among them."""

    async def check() -> None:
        subjects = "log.>,gateway.>"
        async with jetstream(relay.nats_url) as js:
            await publish(js, status("before", Status.HEALTHY))
            async with (
                follow(relay.ws_url, subjects=subjects) as socket,
                stream(relay.url + path, gzip=gzip, query={"subjects": subjects}) as client,
            ):
                assert client.headers.get("content-encoding") == ("gzip" if gzip else None)
                await started(client)
                texts = [f"{number} \u2028 {'x' * 3_000}" for number in range(60)]
                await asyncio.gather(*(publish(js, line(text)) for text in texts))
                assert sorted(await client.texts(60)) == sorted(texts)
                assert await socket.texts(60) == await client.texts(60)
                heartbeat = await client.one("heartbeat")
                kinds = [message["type"] for message in client.messages]
                assert kinds[:3] == ["welcome", "subscribed", "snapshot"]
                states = [item["subject"] for item in client.messages[2]["events"]]
                assert "gateway.status.ctp.before" in states
                assert heartbeat["cursor"].split("-")[1] == socket.cursor.split("-")[1]
                if path == "/sse":
                    assert client.last_id == heartbeat["cursor"]
                    assert client.retry_ms is not None
                    assert 1_000 <= client.retry_ms <= 5_000

    run(check())


@pytest.mark.parametrize("path", PATHS)
def test_line_breaks_between_tokens_do_not_end_a_message(relay: Relay, path: str) -> None:
    """An event travels as published, but its line breaks, which both formats reserve, become spaces."""
    body = line("broken").encode().replace(b",", b",\r\n")

    async def check() -> None:
        async with stream(relay.url + path) as client, jetstream(relay.nats_url) as js:
            await started(client)
            await js.publish("log.info.x", body)
            assert await client.texts(1) == ["broken"]

    run(check())


def test_a_browser_resumes_from_its_last_id(relay: Relay) -> None:
    """``Last-Event-ID`` replaces ``cursor`` and ``since`` in the address, which a browser repeats."""

    async def check() -> None:
        query = {"since": "1ms", "subjects": "log.info.x"}
        async with stream(relay.url + "/sse", query=query) as client:
            await started(client)
            await say(relay, "one")
            assert await client.texts(1) == ["one"]
        await say(relay, "two")
        async with stream(relay.url + "/sse", last_id=client.last_id, query=query) as again:
            assert (await again.one("subscribed"))["resumed"]
            assert await again.texts(1) == ["two"]

    run(check())


def test_a_browser_that_leaves_before_its_snapshot_gets_it_again(relay: Relay) -> None:
    """Until the snapshot is complete, the id says that it is missing, and events since are sent, too."""

    async def check() -> None:
        query = {"subjects": "gateway.>,log.info.again"}
        async with jetstream(relay.nats_url) as js:
            await publish(js, status("known"))
            async with stream(relay.url + "/sse", query=query) as client:
                await client.one("subscribed")
            await publish(js, line("meanwhile", source="again"))
            async with stream(relay.url + "/sse", last_id=client.last_id, query=query) as again:
                assert not (await again.one("subscribed"))["resumed"]
                states = (await again.one("snapshot"))["events"]
                assert "gateway.status.ctp.known" in [item["subject"] for item in states]
                assert await again.texts(1) == ["meanwhile"]

    run(check())


@pytest.mark.parametrize("last_id", ["42", "x-1~snapshot", "1-1", "a" * 2_000])
def test_an_id_of_another_server_is_a_reset(relay: Relay, last_id: str) -> None:
    """An id that no relay has sent, or one of another stream, is told as a reset, and a snapshot follows."""

    async def check() -> None:
        async with stream(relay.url + "/sse", last_id=last_id) as client:
            assert (await client.one("gap"))["reason"] == "reset"
            assert client.last_id.endswith("~snapshot")
            await client.one("snapshot")

    run(check())


def request(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Return the bytes of a request that does not ask to close the connection."""
    lines = [f"{method} {target} HTTP/{version}", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("path", PATHS)
def test_old_and_short_requests(relay: Relay, path: str) -> None:
    """HTTP/1.0 has no chunks; HEAD has no body; both may follow another request on their connection."""
    with relay.connect("127.0.0.1") as link:
        link.sendall(request("/health"))
        read_until(link, b'"connections"')
        link.sendall(request(path, version="1.0"))
        data = read_until(link, b'"subscribed"')
    head, _, body = data[data.rindex(b"HTTP/1.1 200") :].partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.lstrip().startswith((b"retry: ", b'{"type":"welcome"'))
    answer = answer_of(raw(relay, request(path, method="HEAD")))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["x-accel-buffering"] == "no"
    answer = answer_of(raw(relay, request(path + "?level=x", method="HEAD")))
    assert (answer.status, answer.body) == (400, b"")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("lines", "method", "status"),
    [
        (["Content-Length: 2"], "GET", 400),
        (["Transfer-Encoding: chunked"], "GET", 400),
        ([], "POST", 405),
        ([], "DELETE", 405),
        (["Origin: https://evil.com"], "GET", 403),
    ],
)
def test_other_requests_are_rejected(
    relay: Relay, path: str, lines: list[str], method: str, status: int
) -> None:
    """A stream takes neither a body, nor another method, nor a page of another site."""
    answer = answer_of(raw(relay, request(path, *lines, method=method)))
    assert answer.status == status
    assert answer.message


def test_what_follows_a_request_is_discarded_within_a_bound(relay: Relay) -> None:
    """A pipelined request is not answered, and a client that keeps sending is disconnected."""
    with relay.connect("127.0.0.1") as link:
        link.sendall(request("/stream") + request("/health"))
        data = read_until(link, b'"done":true}\n')
        link.sendall(b"x" * 1024)
        before = count(relay, "rejected_total", limit="message_rate")
        for _ in range(80):
            link.sendall(b"x" * 1024)
        data += read_all(link)
    assert b'"code":4429' in data
    assert data.count(b"HTTP/1.1") == 1
    assert count(relay, "rejected_total", limit="message_rate") == before + 1


def test_a_stream_behind_a_pending_response_is_rejected(relay: Relay) -> None:
    """A stream takes over the socket, so it does not wait behind another response."""
    data = raw(relay, request("/health") + request("/sse"))
    assert b'"code":"bad_query"' in data[data.rindex(b"HTTP/1.1 ") :]


def test_clients_are_counted(relay: Relay) -> None:
    """Metrics and status count streams as connections, each by its transport."""

    async def check() -> None:
        before = count(relay, "connections")
        async with stream(relay.url + "/sse") as sse, stream(relay.url + "/stream") as lines:
            await started(sse)
            await started(lines)
            assert count(relay, "connections") == before + 2
            assert count(relay, "transport_connections", transport="sse") == 1
            assert count(relay, "transport_connections", transport="ndjson") == 1
            with urlopen(f"{relay.ops_url}/statusz") as page:
                transports = json.loads(page.read())["transports"]
            assert (transports["sse"], transports["ndjson"]) == (1, 1)
        while count(relay, "transport_connections", transport="sse"):
            await asyncio.sleep(0.01)

    run(check())


@pytest.mark.parametrize("path", PATHS)
def test_a_relay_that_stops_says_bye(nats_server: NatsServer, path: str) -> None:
    """At a shutdown a stream ends with ``bye`` and the end of its body; a browser is told when to return."""

    async def check(relay: Relay) -> None:
        async with stream(relay.url + path, gzip=True) as client:
            await started(client)
            stopping = asyncio.create_task(asyncio.to_thread(relay.stop))
            bye = await client.one("bye")
            assert bye["code"] == 1001
            if path == "/sse":
                assert client.retry_ms == bye["retry_after_ms"]
            with pytest.raises(EOFError):
                await client.read()
            assert await stopping == 0

    with Relay(nats_server.url, "--drain", "20") as relay:
        run(check(relay))


def limited(relay: Relay, *headers: str, target: str = "/sse") -> bytes:
    """Return the response to a request for a stream from a client that is at a limit."""
    return raw(relay, get(target, *headers), source="127.0.0.9")


def test_limits_count_streams_and_browsers_try_again(nats_server: NatsServer) -> None:
    """A stream counts towards the connections of its address; at a limit a browser that resumes is told to
    retry, in a response that it does not give up on.
    """

    async def check(relay: Relay) -> None:
        async with stream(relay.url + "/sse", source="127.0.0.9") as client:
            await started(client)
            answer = answer_of(await asyncio.to_thread(limited, relay))
            assert answer.status == 429
            answer = answer_of(
                await asyncio.to_thread(limited, relay, "Last-Event-ID: x-1", target="/stream")
            )
            assert answer.status == 429
            answer = answer_of(await asyncio.to_thread(limited, relay, "Last-Event-ID: x-1"))
            assert answer.status == 200
            assert answer.headers["content-type"] == "text/event-stream"
            retry, data, *_ = answer.body.decode().splitlines()
            assert retry == "retry: 5000"
            assert json.loads(data.removeprefix("data: "))["code"] == 4429

    with Relay(nats_server.url, "--max-address-connections", "1") as relay:
        run(check(relay))


def test_a_browser_retries_at_the_limit_of_its_requests(nats_server: NatsServer) -> None:
    """The same holds for the rate of requests on a connection that is kept open, as that of a proxy."""
    with Relay(nats_server.url, "--address-rate", "1") as relay, relay.connect("127.0.0.9") as link:
        data = b""
        for _ in range(40):
            link.sendall(request("/health"))
            data = read_until(link, b"}")
            if b" 429 " in data:
                break
        assert b" 429 " in data
        eventually(
            lambda: b"retry: 5000" in limited(relay, "Last-Event-ID: x-1"),
            "the rejection is one that browsers retry",
        )


def test_a_relay_that_starts_lets_browsers_wait(tmp_path: Path) -> None:
    """Until a relay is ready, a request is rejected with 503, and a browser that resumes is told to retry."""
    server = NatsServer(tmp_path)
    with server:
        pass
    relay = Relay(server.url)
    try:
        relay.start(ready=False)
        assert answer_of(raw(relay, get("/sse"))).status == 503
        answer = answer_of(raw(relay, get("/sse", "Last-Event-ID: x-1")))
        assert answer.status == 200
        assert b"retry: 1000\n" in answer.body
        assert b'"code":4503' in answer.body
    finally:
        relay.close()


def test_a_rejection_for_good_ends_the_reconnects_of_a_browser(relay: Relay) -> None:
    """Status 204 tells a browser not to reconnect; a client that does not resume gets the reason."""
    assert answer_of(raw(relay, get("/sse?level=x"))).status == 400
    answer = answer_of(raw(relay, get("/sse?level=x", "Last-Event-ID: x-1")))
    assert (answer.status, answer.body) == (204, b"")
    assert answer_of(raw(relay, get("/stream?level=x", "Last-Event-ID: x-1"))).status == 400


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_does_not_read_is_disconnected(nats_server: NatsServer, path: str) -> None:
    """A client that reads nothing, or a byte now and then, is disconnected; the others get every event."""

    async def check(relay: Relay) -> None:
        async with stream(relay.url + path, query={"mode": "complete"}) as client:
            await started(client)
            texts = [f"{number} {'x' * 2_000}" for number in range(500)]
            async with jetstream(relay.nats_url) as js:
                await asyncio.gather(*(publish(js, line(text)) for text in texts))
            assert len(await client.texts(500)) == 500

    relay = Relay(nats_server.url, "--client-rate", "0")
    relay.program = [sys.executable, "-m", "tests.support.programs.quick_pings", "relay"]
    with relay, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE)
        slow.connect(relay.host_port)
        slow.sendall(request(path + "?mode=complete"))
        assert slow.recv(1) == b"H"
        eventually(lambda: count(relay, "connections") == 1, "the slow client has a session")
        run(check(relay))

        def disconnected() -> bool:
            slow.recv(1)
            return count(relay, "disconnects_total", code="4408") == 1

        eventually(disconnected, "the slow client is disconnected")


def test_curl_and_jq(relay: Relay) -> None:
    """``curl -N … | jq`` prints events as they arrive, compressed or not."""
    if shutil.which("curl") is None or shutil.which("jq") is None:
        pytest.skip("needs curl and jq")
    for option in ("-sN", "-sN --compressed"):
        print_text = "jq --unbuffered -c 'select(.event).event.message'"
        command = f"curl {option} '{relay.url}/stream?subjects=log.>' | {print_text}"
        pipe = subprocess.Popen(
            ["sh", "-c", command], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert pipe.stdout is not None
        try:
            eventually(lambda: count(relay, "transport_connections", transport="ndjson") == 1, "curl follows")
            run(say(relay, option))
            assert pipe.stdout.readline() == f'"{option}"\n'
        finally:
            subprocess.run(["kill", "--", f"-{pipe.pid}"], check=False)
            pipe.wait(PATIENCE)
            pipe.stdout.close()
        eventually(lambda: count(relay, "transport_connections", transport="ndjson") == 0, "curl has left")


def test_streams_are_audited(nats_server: NatsServer) -> None:
    """The audit log has the transport of each session, and its end."""

    async def check(relay: Relay) -> None:
        for path in PATHS:
            async with stream(relay.url + path) as client:
                await started(client)

    with Relay(nats_server.url, "--audit") as relay:
        run(check(relay))
        eventually(lambda: not count(relay, "connections"), "both clients have left")
        relay.stop()
    found = records(nats_server.url)
    opened = {item["session"]: item["transport"] for item in found if item["record"] == "session_started"}
    assert sorted(opened.values()) == ["ndjson", "sse"]
    ended = [item for item in found if item["record"] == "session_ended"]
    assert {item["session"] for item in ended} == set(opened)
    assert all(item["bytes_sent"] > 100 for item in ended)


def token(life: float = 3_600.0, **more: object) -> str:
    """Return a token that expires after a number of seconds."""
    return forge.token("HS256", forge.claims(exp=time.time() + life, tickertape={"subjects": [">"]}, **more))


def bearer(text: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Path]]:
    """Run a relay that requires tokens, with the file of its revocations."""
    revoked = tmp_path_factory.mktemp("revoked") / "list.txt"
    revoked.write_text("")
    env = {f"TICKERTAPE_{name.upper()}": value for name, value in forge.RELAY_SETTINGS.items()}
    options = ("--jwt-revoked-file", str(revoked), "--allowed-origins", "https://app.example.com")
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    with server, Relay(server.url, *options, **env) as relay:
        yield relay, revoked


@pytest.mark.parametrize("path", PATHS)
def test_a_token_ends_its_stream(guarded: tuple[Relay, Path], path: str) -> None:
    """A stream ends when its token expires or is revoked; a browser that resumes then is told so."""
    relay, revoked = guarded

    async def check(client: StreamClient) -> None:
        assert (await client.one("error"))["code"] == "unauthorized"
        assert (await client.one("bye"))["code"] == 4401
        with pytest.raises(EOFError):
            await client.read()

    async def expire() -> None:
        short = token(3.0)
        async with stream(relay.url + path, headers=bearer(short)) as client:
            await client.one("token_expiring")
            await check(client)
        if path == "/sse":
            async with stream(relay.url + path, headers=bearer(short), last_id=client.last_id) as again:
                await check(again)
        else:
            with pytest.raises(Rejected) as caught:
                async with stream(relay.url + path, headers=bearer(short)):
                    pass
            assert caught.value.status == 401

    async def revoke() -> None:
        jti = f"revoked-{path}"
        async with stream(relay.url + path, headers=bearer(token(jti=jti))) as client:
            await started(client)
            revoked.write_text(f"{jti}\n")
            await check(client)

    run(expire())
    run(revoke())


def test_a_token_is_required(guarded: tuple[Relay, Path]) -> None:
    """Without a token, or with one in the query, a stream does not start, and the response says why."""
    relay, _ = guarded
    answer = answer_of(raw(relay, get("/sse")))
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert "/session" in answer.message
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer_of(raw(relay, get("/stream"))).status == 401
    assert answer_of(raw(relay, get(f"/sse?token={token()}"))).status == 400


def session(relay: Relay, *headers: str, method: str = "POST") -> tuple[int, dict[str, str]]:
    """Send a request for ``/session``; return status and headers."""
    answer = answer_of(raw(relay, get("/session", *headers, method=method)))
    return answer.status, answer.headers


def test_a_session_stores_the_token_for_sse_alone(guarded: tuple[Relay, Path]) -> None:
    """The cookie is the token, valid at every relay, for ``/sse`` and nothing else."""
    relay, _ = guarded
    text = token()
    code, headers = session(relay, f"Authorization: Bearer {text}")
    assert code == 204
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert cookie == f"tickertape_session={text}"
    assert attributes[:4] == ["Path=/sse", "HttpOnly", "Secure", "SameSite=Strict"]
    assert 3_500 < int(attributes[4].removeprefix("Max-Age=")) <= 3_600

    async def follow_with(path: str, *more: tuple[str, str]) -> StreamClient:
        async with stream(relay.url + path, headers={"Cookie": f"a=b; {cookie}", **dict(more)}) as client:
            return await started(client)

    run(follow_with("/sse"))
    run(follow_with("/sse", ("Sec-Fetch-Site", "same-origin")))
    run(follow_with("/sse", ("Origin", "https://app.example.com"), ("Sec-Fetch-Site", "same-site")))
    for path in ("/stream", "/events", "/gateways"):
        assert answer_of(raw(relay, get(path, f"Cookie: {cookie}"))).status == 401
    code, headers = session(relay, method="DELETE")
    assert code == 204
    assert headers["set-cookie"].startswith("tickertape_session=; Path=/sse; ")
    assert headers["set-cookie"].endswith("; Max-Age=0")


def test_a_cookie_is_not_for_other_pages(guarded: tuple[Relay, Path]) -> None:
    """A page of another origin can neither use the cookie, nor store or remove one; nor can a bad token."""
    relay, _ = guarded
    text, expired = token(), token(-60.0)
    cookie = f"Cookie: tickertape_session={text}"
    for lines, expected in (
        ([cookie, "Origin: https://evil.com"], 403),
        ([cookie, "Sec-Fetch-Site: cross-site"], 403),
        ([cookie, "Sec-Fetch-Site: same-site"], 403),
        ([cookie, "Cookie: tickertape_session=x.y.z"], 401),
        ([f"Cookie: tickertape_session={expired}"], 401),
        (["Cookie: tickertape_session="], 401),
    ):
        assert answer_of(raw(relay, get("/sse", *lines))).status == expected, lines
    for method in ("POST", "DELETE"):
        code, headers = session(
            relay, f"Authorization: Bearer {text}", "Origin: https://evil.com", method=method
        )
        assert (code, "set-cookie" in headers) == (403, False)
    for lines, expected in (
        ([], 401),
        ([f"Authorization: Bearer {expired}"], 401),
        ([f"Authorization: Bearer {token(tickertape_note='x' * 4_000)}"], 400),
        ([f"Authorization: Bearer {text}", "Content-Length: 2"], 400),
    ):
        code, headers = session(relay, *lines)
        assert (code, "set-cookie" in headers) == (expected, False), lines
    assert session(relay, method="GET")[0] == 405


def test_a_page_of_the_same_site_may_use_the_cookie(guarded: tuple[Relay, Path]) -> None:
    """An allowed origin may send the cookie, and read the stream and the response to its login."""
    relay, _ = guarded
    page = "Origin: https://app.example.com"
    for path, method in (("/sse", "GET"), ("/stream", "GET"), ("/session", "POST, DELETE")):
        answer = answer_of(raw(relay, get(path, page, method="OPTIONS")))
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert answer.headers["access-control-allow-methods"] == method
        assert answer.headers["access-control-allow-credentials"] == "true"
    with relay.connect("127.0.0.1") as link:
        link.sendall(get("/sse", page, f"Authorization: Bearer {token()}"))
        head = read_until(link, b'"subscribed"').lower()
    assert b"access-control-allow-origin: https://app.example.com\r\n" in head
    assert b"access-control-allow-credentials: true\r\n" in head


def test_a_relay_without_tokens_needs_no_cookie(relay: Relay) -> None:
    """A page may log in at any relay; without tokens there is nothing to store."""
    code, headers = session(relay)
    assert (code, "set-cookie" in headers) == (204, False)
