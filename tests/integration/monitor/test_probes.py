"""The probes against servers that misbehave as real servers do."""

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
"""Timeout in seconds of a probe that is expected to time out; the others have ample time."""


def run_probe(
    context: ProbeContext | None = None, *, patience: float = PATIENCE, **probe: Any
) -> Result | None:
    """Probe once, in an event loop of its own."""
    return asyncio.run(probe_once(context, patience=patience, **probe))


async def probe_once(
    context: ProbeContext | None = None, *, patience: float = PATIENCE, **probe: Any
) -> Result | None:
    """Probe once with ``patience`` as its timeout."""
    parsed: ProbeSettings = TypeAdapter(Probe).validate_python(probe)
    async with asyncio.timeout(2 * PATIENCE):
        return await run(Check(parsed, 5.0, patience, 3, 2), context or ProbeContext())


def patience_for(expected: str) -> float:
    """Return the timeout for a probe with an expected error."""
    return TIMEOUT if expected.startswith("no response within") else PATIENCE


def outcome_and_error(result: Result | None) -> tuple[Outcome, str]:
    assert result is not None
    return result.outcome, str(result.error)


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server on a loopback port; cancel its connections at the end."""
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
    """Read everything and send nothing."""
    while await reader.read(65_536):
        pass


def answering(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await silent(reader, writer)

    return handle


@pytest.mark.parametrize(
    ("settings", "body", "outcome", "expected"),
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
def test_http_response_content(
    settings: dict[str, Any], body: bytes, outcome: Outcome, expected: str
) -> None:
    """An HTTP response must contain the expected text or JSON within the part of the body that is read."""

    async def main() -> Result | None:
        async with serving(answering(body)) as port:
            return await probe_once(kind="http", url=f"http://127.0.0.1:{port}/", **settings)

    found, error = outcome_and_error(asyncio.run(main()))
    assert found is outcome, error
    assert expected in error


@pytest.mark.parametrize(
    ("days", "trusted", "outcome", "expected"),
    [
        (90, True, Outcome.OK, "None"),
        (3, True, Outcome.DEGRADED, "certificate expires in 3.0 days"),
        (-1, True, Outcome.FAILED, "certificate rejected: certificate has expired"),
        (90, False, Outcome.FAILED, "certificate rejected"),
    ],
)
def test_tls(tmp_path: Path, days: int, trusted: bool, outcome: Outcome, expected: str) -> None:
    """A certificate can be valid, about to expire, expired, or untrusted."""
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
            return await probe_once(kind="tls", address=f"localhost:{port}", ca=str(tmp_path / "ca.pem"))

    result = asyncio.run(main())
    found, error = outcome_and_error(result)
    assert found is outcome, error
    assert expected in error
    if found is not Outcome.FAILED:
        assert result is not None
        assert result.expires == pytest.approx(now.timestamp() + days * 86_400, abs=2)


def test_tls_without_a_handshake() -> None:
    """A peer that never completes the TLS handshake times out."""

    async def main() -> Result | None:
        async with serving(silent) as port:
            return await probe_once(kind="tls", address=f"127.0.0.1:{port}", patience=TIMEOUT)

    assert outcome_and_error(asyncio.run(main())) == (Outcome.FAILED, "no response within 0.5 s")


@pytest.mark.parametrize(
    ("settings", "outcome", "expected"),
    [
        ({}, Outcome.OK, "None"),
        ({"send": "ping", "expect": "got ping"}, Outcome.OK, "None"),
        ({"expect": "what is never said"}, Outcome.FAILED, "no response within 0.5 s"),
        ({"send": "close", "expect": "x"}, Outcome.FAILED, "WebSocket failed"),
        ({"send": "flood", "expect": "x"}, Outcome.FAILED, "not in the first 20 messages"),
    ],
)
def test_websocket(
    settings: dict[str, Any], outcome: Outcome, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WebSocket probe connects, sends a text, and waits for the expected one."""
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
            return await probe_once(kind="websocket", url=url, patience=patience_for(expected), **settings)

    found, error = outcome_and_error(asyncio.run(main()))
    assert found is outcome, error
    assert expected in error


def test_websocket_without_upgrade() -> None:
    """A web server that does not upgrade is reported as a rejected handshake."""

    async def main() -> Result | None:
        async with serving(answering(b"hello")) as port:
            return await probe_once(kind="websocket", url=f"ws://127.0.0.1:{port}/")

    assert "WebSocket handshake rejected" in outcome_and_error(asyncio.run(main()))[1]


def acceptor(answers: Callable[[dict[int, str]], list[bytes]]) -> Handler:
    """Return a FIX peer that answers each message with the given bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            text = await reader.readuntil(b"\x0110=")
            text += await reader.readuntil(b"\x01")
            for response in answers(parse_fields(text)):
                writer.write(response)
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
    ("answers", "outcome", "expected"),
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
        (lambda found: [] if found[35] == "5" else proper(found), Outcome.OK, "None"),
    ],
)
def test_fix(
    answers: Callable[[dict[int, str]], list[bytes]],
    outcome: Outcome,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A FIX probe logs on, sends a test request and logs out; any faulty peer fails with its reason."""
    monkeypatch.setenv("FIX_PASSWORD", "s3cret")

    async def main() -> Result | None:
        async with serving(acceptor(answers)) as port:
            return await probe_once(
                patience=patience_for(expected), kind="fix",
                address=f"127.0.0.1:{port}", sender_comp_id="US", target_comp_id="THEM",
                username="me", password_env="FIX_PASSWORD",
            )  # fmt: skip

    found, error = outcome_and_error(asyncio.run(main()))
    assert found is outcome, error
    assert expected in error
    assert "s3cret" not in error


def test_fix_logons_are_limited_and_a_missing_variable_is_reported() -> None:
    """Beyond the maximum of logons a probe has no result, and a missing variable is reported."""
    context = ProbeContext()
    probe: dict[str, Any] = {
        "kind": "fix", "address": f"127.0.0.1:{free_port()}", "sender_comp_id": "a", "target_comp_id": "b",
        "max_logons_per_hour": 2, "password_env": "NO_SUCH_VARIABLE",
    }  # fmt: skip
    assert outcome_and_error(run_probe(context, **probe)) == (
        Outcome.FAILED,
        "environment variable NO_SUCH_VARIABLE is not set",
    )
    assert outcome_and_error(run_probe(context, **{**probe, "password_env": None})) == (
        Outcome.FAILED,
        "connection refused",
    )
    assert run_probe(context, **probe) is None


@pytest.mark.parametrize(
    ("script", "outcome", "expected"),
    [
        ("echo fine; exit 0", Outcome.OK, "None"),
        ("echo one; echo slow \x1b[31mqueue; exit 1", Outcome.DEGRADED, r"slow \x1b[31mqueue"),
        ("exit 2", Outcome.FAILED, "exited with 2"),
        ("echo odd >&2; exit 7", Outcome.FAILED, "exited with 7; expected 0, 1 or 2: odd"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last; exit 2", Outcome.FAILED, "last"),
        ("test $TICKET = 5", Outcome.OK, "None"),
    ],
)
def test_exec(script: str, outcome: Outcome, expected: str) -> None:
    """The exit code of a command gives the outcome, its last line the reason."""
    result = run_probe(kind="exec", command=["sh", "-c", script], environment={"TICKET": "5"})
    found, error = outcome_and_error(result)
    assert found is outcome, error
    assert expected in error


def test_no_secret_reaches_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors do not show secrets that a peer or a command quotes: the monitor's, and those sent to it."""
    monkeypatch.setenv("TICKERTAPE_NATS_PASSWORD", "hunter2")
    monkeypatch.setenv("TICKERTAPE_NATS_URL", "nats://relay:s3s@me@nats:4222")
    monkeypatch.setenv("FIX_PASSWORD", "xyzzy")
    script = "echo $API_TOKEN and hunter2 and s3s@me but not $ZONE; exit 2"
    environment = {"API_TOKEN": "plugh", "ZONE": "east"}

    async def main() -> list[str]:
        errors = [await probe_once(kind="exec", command=["sh", "-c", script], environment=environment)]
        async with serving(answering(b'{"sent": "Bearer abracadabra"}')) as port:
            errors.append(
                await probe_once(
                    kind="http", url=f"http://127.0.0.1:{port}/", json={"sent": "x"},
                    headers={"Authorization": "Bearer abracadabra"},
                )
            )  # fmt: skip
        async with serving(
            acceptor(lambda found: [reply("5", (58, f"wrong password {found[554]}"))])
        ) as port:
            errors.append(
                await probe_once(
                    kind="fix", address=f"127.0.0.1:{port}", sender_comp_id="US", target_comp_id="THEM",
                    password_env="FIX_PASSWORD",
                )
            )  # fmt: skip
        return [outcome_and_error(error)[1] for error in errors]

    assert asyncio.run(main()) == [
        "*** and *** and *** but not east",
        "sent is '***', expected 'x'",
        "rejected by the peer: wrong password ***",
    ]


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    """A command that ignores SIGTERM is killed after its timeout together with its children."""
    pid = tmp_path / "pid"
    script = f"trap '' TERM; sleep 60 & echo $! > {pid}; wait"
    for seconds in (TIMEOUT, 4 * TIMEOUT, 16 * TIMEOUT, 64 * TIMEOUT):
        result = run_probe(kind="exec", command=["sh", "-c", script], patience=seconds)
        assert outcome_and_error(result) == (Outcome.FAILED, f"no response within {seconds:.1f} s")
        if pid.exists() and pid.read_text():
            break  # otherwise it was killed before it had started the child
    child = int(pid.read_text())
    eventually(lambda: not alive(child), "the child has ended")


def test_a_missing_command() -> None:
    """A command that does not exist is a failed probe, not an exception."""
    assert outcome_and_error(run_probe(kind="exec", command=["/no/such/program"])) == (
        Outcome.FAILED,
        "No such file or directory",
    )


def test_freshness() -> None:
    """The result is unknown without messages or NATS, ok while messages arrive, and failed afterwards."""

    async def main() -> list[str]:
        context = ProbeContext()
        clock = asyncio.get_running_loop().time
        probe: dict[str, Any] = {"kind": "freshness", "subject": "md.>", "within": "60s"}
        found = [await probe_once(context, **probe)]
        context.freshness.listen({"md.>"}, clock())
        found.append(await probe_once(context, **probe))
        context.freshness.record_message("md.shfe", clock())
        found.append(await probe_once(context, **probe))
        context.freshness.record_message("md.shfe", clock() - 120.0)
        context.freshness.listen({"md.>"}, clock() - 120.0)
        found.append(await probe_once(context, **probe))
        context.freshness.suspend()
        found.append(await probe_once(context, **probe))
        return [str(result and result.outcome) for result in found]

    assert asyncio.run(main()) == ["None", "None", "ok", "failed", "None"]
