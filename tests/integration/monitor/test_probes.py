"""The probes against servers that do what servers do on a bad day."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import TypeAdapter
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import Probe, ProbeContext, ProbeSettings, run, websocket
from tickertape.producers.monitor.probes.fix import encode_message, parse_fields
from websockets.asyncio.server import ServerConnection, serve

from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.programs.worker_desk import alive
from tests.support.servers.nats_server import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TIMEOUT = 0.5
"""Seconds that a probe is given where the test is about their end; else it has all the time that it needs."""


def look(kit: ProbeContext | None = None, *, patience: float = PATIENCE, **probe: Any) -> Result | None:
    """Probe once, in a loop of its own."""
    return asyncio.run(seen(kit, patience=patience, **probe))


async def seen(kit: ProbeContext | None = None, *, patience: float = PATIENCE, **probe: Any) -> Result | None:
    """Probe once; ``patience`` is its timeout."""
    parsed: ProbeSettings = TypeAdapter(Probe).validate_python(probe)
    async with asyncio.timeout(2 * PATIENCE):
        return await run(Check(parsed, 5.0, patience, 3, 2), kit or ProbeContext())


def patience_for(says: str) -> float:
    """Timeout for a probe that is expected to say this."""
    return TIMEOUT if says.startswith("no response within") else PATIENCE


def told(result: Result | None) -> tuple[Outcome, str]:
    assert result is not None
    return result.outcome, str(result.error)


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a loopback port that ends with all its connections."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes everything and says nothing."""
    while await reader.read(65_536):
        pass


def answering(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await silent(reader, writer)

    return handle


# HTTP.


@pytest.mark.parametrize(
    ("settings", "body", "outcome", "says"),
    [
        (
            {"json": {"status": "UP", "md.fresh": True}},
            b'{"status":"UP","md":{"fresh":true}}',
            Outcome.OK,
            "None",
        ),
        ({"json": {"md.fresh": True}}, b'{"md":{"fresh":1}}', Outcome.FAILED, "md.fresh is 1, expected True"),
        ({"json": {"a.b": 1}}, b'{"a":[]}', Outcome.FAILED, "a.b is absent, expected 1"),
        ({"json": {"a.1": 2}}, b'{"a":[1,2]}', Outcome.OK, "None"),
        ({"json": {"a": 1}}, b"<html>", Outcome.FAILED, "response is not JSON"),
        ({"body": "ready"}, b"all is ready now", Outcome.OK, "None"),
        ({"body": "ready"}, b"starting", Outcome.FAILED, "does not contain 'ready'"),
        ({"body": "end"}, b"x" * 10_000_000 + b"end", Outcome.FAILED, "does not contain 'end'"),
        ({"status": [201, 204]}, b"", Outcome.FAILED, "status is 200, expected 201 or 204"),
    ],
)
def test_what_an_http_answer_must_hold(
    settings: dict[str, Any], body: bytes, outcome: Outcome, says: str
) -> None:
    """Text or JSON, within the part of the body that is read."""

    async def main() -> Result | None:
        async with serving(answering(body)) as port:
            return await seen(kind="http", url=f"http://127.0.0.1:{port}/", **settings)

    found, error = told(asyncio.run(main()))
    assert found is outcome, error
    assert says in error


# TLS.


@pytest.mark.parametrize(
    ("days", "trusted", "outcome", "says"),
    [
        (90, True, Outcome.OK, "None"),
        (3, True, Outcome.DEGRADED, "certificate expires in 3.0 days"),
        (-1, True, Outcome.FAILED, "certificate rejected: certificate has expired"),
        (90, False, Outcome.FAILED, "certificate rejected"),
    ],
)
def test_tls(tmp_path: Path, days: int, trusted: bool, outcome: Outcome, says: str) -> None:
    """A certificate that is good, ends soon, has ended, or is nobody's."""
    ca = trustme.CA()
    now = datetime.datetime.now(datetime.UTC)
    certificate = ca.issue_cert(
        "localhost",
        not_before=now - datetime.timedelta(days=30),
        not_after=now + datetime.timedelta(days=days),
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    (ca if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def main() -> Result | None:
        async with serving(silent, context) as port:
            return await seen(kind="tls", address=f"localhost:{port}", ca=str(tmp_path / "ca.pem"))

    result = asyncio.run(main())
    found, error = told(result)
    assert found is outcome, error
    assert says in error
    if found is not Outcome.FAILED:
        assert result is not None
        assert result.expires == pytest.approx(now.timestamp() + days * 86_400, abs=2)


def test_tls_with_one_who_never_shakes_hands() -> None:
    """It ends in time."""

    async def main() -> Result | None:
        async with serving(silent) as port:
            return await seen(kind="tls", address=f"127.0.0.1:{port}", patience=TIMEOUT)

    assert told(asyncio.run(main())) == (Outcome.FAILED, "no response within 0.5 s")


# WebSocket.


@pytest.mark.parametrize(
    ("settings", "outcome", "says"),
    [
        ({}, Outcome.OK, "None"),
        ({"send": "ping", "expect": "got ping"}, Outcome.OK, "None"),
        ({"expect": "what is never said"}, Outcome.FAILED, "no response within 0.5 s"),
        ({"send": "close", "expect": "x"}, Outcome.FAILED, "WebSocket failed"),
        ({"send": "flood", "expect": "x"}, Outcome.FAILED, "not in the first 20 messages"),
    ],
)
def test_websocket(
    settings: dict[str, Any], outcome: Outcome, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connect, say something, hear something."""
    monkeypatch.setattr(websocket, "MAX_MESSAGES", 20)

    async def talk(connection: ServerConnection) -> None:
        async for text in connection:
            if text == "close":
                await connection.close(1011)
            for _ in range(30 if text == "flood" else 1):
                await connection.send(f"got {text!s}")

    async def main() -> Result | None:
        async with serve(talk, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            return await seen(kind="websocket", url=url, patience=patience_for(says), **settings)

    found, error = told(asyncio.run(main()))
    assert found is outcome, error
    assert says in error


def test_websocket_that_is_none() -> None:
    """A web server that does not upgrade."""

    async def main() -> Result | None:
        async with serving(answering(b"hello")) as port:
            return await seen(kind="websocket", url=f"ws://127.0.0.1:{port}/")

    assert "WebSocket handshake rejected" in told(asyncio.run(main()))[1]


# FIX.


def acceptor(answers: Callable[[dict[int, str]], list[bytes]]) -> Handler:
    """A FIX peer that answers each message with some bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            text = await reader.readuntil(b"\x0110=")
            text += await reader.readuntil(b"\x01")
            for answer in answers(parse_fields(text)):
                writer.write(answer)
            await writer.drain()

    return handle


def reply(kind: str, *fields: tuple[int, str]) -> bytes:
    return encode_message("FIX.4.4", [(35, kind), (49, "THEM"), (56, "US"), (34, "1"), *fields])


def proper(found: dict[int, str]) -> list[bytes]:
    kind = found[35]
    if kind == "A":
        assert (found[49], found[56], found[553], found[554]) == ("US", "THEM", "me", "s3cret")
        return [reply("A"), reply("1", (112, "are you there"))]
    if kind == "1":
        return [reply("0", (112, found[112]))]
    return [reply("5")] if kind == "5" else []


@pytest.mark.parametrize(
    ("answers", "outcome", "says"),
    [
        (proper, Outcome.OK, "None"),
        (
            lambda _: [reply("5", (58, "account is locked"))],
            Outcome.FAILED,
            "rejected by the peer: account is locked",
        ),
        (lambda _: [reply("A")[:-4] + b"000\x01"], Outcome.FAILED, "response has a wrong checksum"),
        (lambda _: [b"HTTP/1.1 400 no\r\n\r\n"], Outcome.FAILED, "response is not FIX"),
        (lambda _: [b"8=FIX.4.4\x01" + b"1=x\x01" * 20_000], Outcome.FAILED, "larger than 65536 bytes"),
        (lambda found: [reply("A")] if found[35] == "A" else [], Outcome.FAILED, "no response within"),
    ],
)
def test_fix(
    answers: Callable[[dict[int, str]], list[bytes]],
    outcome: Outcome,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Logged on, tested and out again; or refused, broken, flooded, half dead."""
    monkeypatch.setenv("FIX_PASSWORD", "s3cret")

    async def main() -> Result | None:
        async with serving(acceptor(answers)) as port:
            return await seen(
                patience=patience_for(says), kind="fix",
                address=f"127.0.0.1:{port}", sender_comp_id="US", target_comp_id="THEM",
                username="me", password_env="FIX_PASSWORD",
            )  # fmt: skip

    found, error = told(asyncio.run(main()))
    assert found is outcome, error
    assert says in error
    assert "s3cret" not in error


def test_fix_is_capped_and_says_what_it_lacks() -> None:
    """Past the cap nobody is logged on, and nothing is said of the gateway."""
    kit = ProbeContext()
    probe: dict[str, Any] = {
        "kind": "fix", "address": f"127.0.0.1:{free_port()}", "sender_comp_id": "a", "target_comp_id": "b",
        "max_logons_per_hour": 2, "password_env": "NO_SUCH_VARIABLE",
    }  # fmt: skip
    assert told(look(kit, **probe)) == (Outcome.FAILED, "environment variable NO_SUCH_VARIABLE is not set")
    assert told(look(kit, **{**probe, "password_env": None})) == (Outcome.FAILED, "connection refused")
    assert look(kit, **probe) is None


# Commands.


@pytest.mark.parametrize(
    ("script", "outcome", "says"),
    [
        ("echo fine; exit 0", Outcome.OK, "None"),
        ("echo one; echo slow \x1b[31mqueue; exit 1", Outcome.DEGRADED, r"slow \x1b[31mqueue"),
        ("exit 2", Outcome.FAILED, "exited with 2"),
        ("echo odd >&2; exit 7", Outcome.FAILED, "exited with 7; expected 0, 1 or 2: odd"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last; exit 2", Outcome.FAILED, "last"),
        ("test $TICKET = 5", Outcome.OK, "None"),
    ],
)
def test_exec(script: str, outcome: Outcome, says: str) -> None:
    """The exit code is the verdict, the last line the reason."""
    result = look(kind="exec", command=["sh", "-c", script], environment={"TICKET": "5"})
    found, error = told(result)
    assert found is outcome, error
    assert says in error


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    """It ignores SIGTERM, and has a child that would live on."""
    pid = tmp_path / "pid"
    script = f"trap '' TERM; sleep 60 & echo $! > {pid}; wait"
    for seconds in (TIMEOUT, 4 * TIMEOUT, 16 * TIMEOUT, 64 * TIMEOUT):
        result = look(kind="exec", command=["sh", "-c", script], patience=seconds)
        assert told(result) == (Outcome.FAILED, f"no response within {seconds:.1f} s")
        if pid.exists() and pid.read_text():
            break  # else it was killed before it had the child
    child = int(pid.read_text())
    eventually(lambda: not alive(child), "the child is gone")


def test_a_command_that_is_not_there() -> None:
    """It is a result, like everything out there."""
    assert told(look(kind="exec", command=["/no/such/program"])) == (
        Outcome.FAILED,
        "No such file or directory",
    )


# Freshness.


def test_freshness() -> None:
    """Unknown at first, well while something arrives, stale after that, unknown without NATS."""

    async def main() -> list[str]:
        kit = ProbeContext()
        clock = asyncio.get_running_loop().time
        probe: dict[str, Any] = {"kind": "freshness", "subject": "md.>", "within": "60s"}
        found = [await seen(kit, **probe)]
        kit.freshness.listen({"md.>"}, clock())
        found.append(await seen(kit, **probe))
        kit.freshness.record_message("md.shfe", clock())
        found.append(await seen(kit, **probe))
        kit.freshness.record_message("md.shfe", clock() - 120.0)
        kit.freshness.listen({"md.>"}, clock() - 120.0)
        found.append(await seen(kit, **probe))
        kit.freshness.suspend()
        found.append(await seen(kit, **probe))
        return [str(result and result.outcome) for result in found]

    assert asyncio.run(main()) == ["None", "None", "ok", "failed", "None"]
