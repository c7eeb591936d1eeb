"""The probes against servers that misbehave as real servers do."""

import asyncio
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import (
    CannotProbe,
    ProbeContext,
    websocket,
)
from tickertape.producers.monitor.probes.fix.messages import encode_message, parse_fields
from tickertape.producers.monitor.probes.result import protect
from websockets.asyncio.server import ServerConnection, serve

from tests.support.probing import (
    TIMEOUT,
    Handler,
    answering,
    outcome_and_error,
    probe_expecting,
    probe_once,
    run_probe,
    serving,
    silent,
)
from tests.support.programs.relay_process import eventually
from tests.support.programs.worker_desk import alive
from tests.support.servers.nats_server import free_port


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
            expected = "no TLS handshake within"
            return await probe_expecting(expected, kind="tls", address=f"127.0.0.1:{port}")

    found, error = outcome_and_error(asyncio.run(main()))
    assert found is Outcome.FAILED
    assert error.startswith("no TLS handshake within")


@pytest.mark.parametrize(
    ("settings", "outcome", "expected"),
    [
        ({}, Outcome.OK, "None"),
        ({"send": "ping", "expect": "got ping"}, Outcome.OK, "None"),
        ({"expect": "what is never said"}, Outcome.FAILED, "no response within"),
        ({"send": "close", "expect": "x"}, Outcome.FAILED, "WebSocket failed"),
        ({"send": "flood", "expect": "x"}, Outcome.FAILED, "not in the first 20 messages"),
        ({"send": "ping", "expect": "got", "hold": "100ms"}, Outcome.OK, "None"),
        ({"send": "flood", "expect": "got", "hold": "100ms"}, Outcome.OK, "None"),
        ({"send": "last", "expect": "got", "hold": "60s"}, Outcome.FAILED, "expected at least 60 s"),
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
            if text == "last":
                await connection.close()

    async def main() -> Result | None:
        async with serve(talk, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            return await probe_expecting(expected, kind="websocket", url=url, **settings)

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
        (lambda _: [b"8=FIX.4.4\x01" + b"1=x\x01" * 20_000], Outcome.FAILED, "response is not FIX"),
        (
            lambda found: [*[reply("d", (107, "ES"))] * (500 if found[35] == "1" else 0), *proper(found)],
            Outcome.OK,
            "None",
        ),
        (
            lambda _: [reply("A"), *[reply("1", (112, "x"))] * 200],
            Outcome.FAILED,
            "peer sent more than 100 requests",
        ),
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
            return await probe_expecting(
                expected, kind="fix",
                address=f"127.0.0.1:{port}", sender_comp_id="US", target_comp_id="THEM",
                username="me", password_env="FIX_PASSWORD",
            )  # fmt: skip

    found, error = outcome_and_error(asyncio.run(main()))
    assert found is outcome, error
    assert expected in error
    assert "s3cret" not in error


def test_fix_logons_are_limited() -> None:
    """Beyond the maximum of logons a probe has no result; a missing password is not a logon."""
    context = ProbeContext()
    probe: dict[str, Any] = {
        "kind": "fix", "address": f"127.0.0.1:{free_port()}", "sender_comp_id": "a", "target_comp_id": "b",
        "max_logons_per_hour": 1,
    }  # fmt: skip
    with pytest.raises(CannotProbe, match="environment variable NO_SUCH_VARIABLE is not set"):
        run_probe(context, **{**probe, "password_env": "NO_SUCH_VARIABLE"})
    assert outcome_and_error(run_probe(context, **probe)) == (Outcome.FAILED, "connection refused")
    assert run_probe(context, **probe) is None


@pytest.mark.parametrize(
    ("script", "outcome", "expected"),
    [
        ("echo fine; exit 0", Outcome.OK, None),
        ("echo slow \x1b[31mqueue; echo more; exit 1", Outcome.DEGRADED, r"slow \x1b[31mqueue"),
        (
            "echo; echo 'DISK CRITICAL - full | /=99%;80;90'; echo '/ | /var=1%'; exit 2",
            Outcome.FAILED,
            "DISK CRITICAL - full",
        ),
        ("echo 'NTP UNKNOWN - no peer'; echo why >&2; exit 3", Outcome.UNKNOWN, "NTP UNKNOWN - no peer"),
        ("exit 1", Outcome.DEGRADED, "exited with 1"),
        ("exit 2", Outcome.FAILED, "exited with 2"),
        ("echo '|time=3s'; exit 2", Outcome.FAILED, "exited with 2"),
        ("exit 3", Outcome.UNKNOWN, "exited with 3"),
        ("echo Traceback >&2; echo KeyError: 5 >&2; exit 1", Outcome.DEGRADED, "KeyError: 5"),
        ("echo odd >&2; exit 7", Outcome.FAILED, "exited with 7; expected 0 to 3: odd"),
        ("exit 255", Outcome.FAILED, "exited with 255; expected 0 to 3"),
        ("kill -SEGV $$", Outcome.FAILED, "killed by SIGSEGV; expected 0 to 3"),
        ("printf 'caf\\351 closed\\r\\n'; exit 2", Outcome.FAILED, "caf\ufffd closed"),
        ("printf 'page\\fbreak'; exit 2", Outcome.FAILED, r"page\x0cbreak"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last; exit 2", Outcome.FAILED, "x" * 200),
        ("test $TICKET = 5", Outcome.OK, None),
    ],
)
def test_exec(script: str, outcome: Outcome, expected: str | None) -> None:
    """The exit code of a command gives the outcome; its first line, up to performance data, the reason."""
    result = run_probe(kind="exec", command=["sh", "-c", script], environment={"TICKET": "5"})
    assert result is not None
    assert (result.outcome, result.error) == (outcome, expected)


def test_no_secret_reaches_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors do not show secrets that a peer or a command quotes: the monitor's, and those sent to it."""
    protect(("hunter2", None), "nats://relay:s3s@me@nats:4222")
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


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    """A command that this host does not have, or may not run, says nothing about the gateway."""
    script = tmp_path / "check"
    script.write_text("#!/no/such/interpreter\n")
    for command, reason in (
        ("/no/such/program", "no such file or directory"),
        (str(tmp_path), "permission denied"),
        (str(script), "permission denied"),
    ):
        with pytest.raises(CannotProbe, match=f"{command} cannot be started: {reason}"):
            run_probe(kind="exec", command=[command])
