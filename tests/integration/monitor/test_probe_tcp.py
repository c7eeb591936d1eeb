"""The exchange of the probe ``tcp`` with real servers and with servers that break off, flood or cheat."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import trustme
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP
from pydantic import TypeAdapter, ValidationError
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import CannotProbe, Probe, tcp
from tickertape.producers.monitor.probes.tcp import PIECE

from tests.support.patience import PATIENCE
from tests.support.probing import TIMEOUT, Handler, outcome_and_error, probe_once, serving, silent

SMTP_STEPS: list[dict[str, Any]] = [
    {"expect": "^220 "},
    {"send": "EHLO monitor\r\n"},
    {"expect": "^250.STARTTLS"},
    {"send": "STARTTLS\r\n"},
    {"expect": "^220 "},
    {"starttls": True},
    {"send": "NOOP\r\n"},
    {"expect": "^250 OK$"},
]
EXPECTED = "expected a line that matches "
QUIET: list[dict[str, Any]] = [{"expect": "^ready$"}]


def peer(*pieces: bytes, ends: bool = False) -> Handler:
    """Return a server that sends pieces, and the next one after each that it receives."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if not await reader.read(65_536):
                return
        while not ends and await reader.read(65_536):
            pass

    return handle


def talk(handler: Handler, seconds: float = PATIENCE, **settings: Any) -> tuple[Outcome, str]:
    """Probe a server once."""

    async def main() -> tuple[Outcome, str]:
        async with serving(handler) as port:
            return outcome_and_error(
                await probe_once(kind="tcp", address=f"127.0.0.1:{port}", patience=seconds, **settings)
            )

    return asyncio.run(main())


def talk_until(handler: Handler, error: str, **settings: Any) -> tuple[Outcome, str]:
    """Probe with longer and longer timeouts, until one suffices for the error that contains it."""
    for seconds in (TIMEOUT, 8 * TIMEOUT, 64 * TIMEOUT):
        found = talk(handler, seconds, **settings)
        if found[1] == error.format(f"{seconds:g}"):
            return found[0], error
    return found


@pytest.mark.parametrize(
    ("pieces", "settings", "error"),
    [
        ((b"", b"+PONG\r\n"), {"send": "PING\r\n", "expect": r"^\+PONG$"}, None),
        ((b"junk\nready\n",), {"steps": QUIET}, None),
        ((b"login: ", b"Password: ", b"$ "), {"steps": [
            {"expect": "^login: "}, {"send": "me\n"},
            {"expect": "^Password: "}, {"send": "x\n"}, {"expect": "."},
        ]}, None),
        ((b"\x16\x00\xff",), {"expect": r"^\x16"}, None),
        ((b"me@host:~$ ",), {"expect": r"[$#] "}, None),
        ((b"me@host:~$ ",), {"expect": r"\$ "}, None),
        ((b"ready\r\r\n",), {"expect": "^ready$"}, None),
        ((b"220 nonce <4f1a> ${2}\r\n", b"AUTH 4f1a\r\n"), {"steps": [
            {"expect": "^(220) nonce <(.*)>"}, {"send": "AUTH ${2}\r\n"}, {"expect": "^AUTH 4f1a$"},
        ]}, None),
        ((b"\n" * 70_000,), {"expect": "ready"}, EXPECTED + "'ready': received blank lines among"),
        ((b"", b"-NOAUTH Authentication required.\r\n"), {"send": "PING\r\n", "expect": r"^\+PONG"},
         EXPECTED + r"'^\\+PONG': received '-NOAUTH Authentication required.' within {} s"),
        ((b"\x1b[31mred\x00\n",), {"steps": QUIET},
         r"step 1, expected a line that matches '^ready$': received '\x1b[31mred\x00' within {} s"),
        ((b"ready",), {"steps": QUIET}, f"step 1, {EXPECTED}'^ready$': received 'ready' within {{}} s"),
        ((b"x" * 70_000,), {"expect": "ready"}, f"{EXPECTED}'ready': received '{'x' * 60}…' among"),
        ((b"x\n" * 70_000,), {"expect": "ready"}, EXPECTED + "'ready': received 'x' among"),
    ],
)  # fmt: skip
def test_an_exchange(pieces: tuple[bytes, ...], settings: dict[str, Any], error: str | None) -> None:
    """An exchange succeeds if each expected line is received; the reason has the step and the latest line."""
    if error is not None and error.endswith("within {} s"):
        outcome, text = talk_until(peer(*pieces), error, **settings)
    else:
        outcome, text = talk(peer(*pieces), **settings)
    assert (outcome is Outcome.OK) is (error is None), text
    assert error is None or text.startswith(error)


def test_a_beginning_of_a_line_matches_however_it_continues() -> None:
    """A group or an end that the rest of the line would change is not taken from its beginning."""
    received: list[bytes] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (b"PIN", b"G :4", b"2a", b"7\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
        received.append(await reader.readline())
        writer.write(b"PONG 42a7 42a7 ${1}\r\n")
        await silent(reader, writer)

    steps = [
        {"expect": r"^PING :(\w+)"},
        {"send": "PONG ${1} ${1} $1 ${x}\r\n"},
        {"expect": r"^(PONG)|(x)"},
        {"send": "[${1}${2}]\r\n"},
    ]
    assert talk(slow, steps=steps) == (Outcome.OK, "None")
    assert received == [b"PONG 42a7 42a7 $1 ${x}\r\n"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"ready", None),
        (b"ready\r\n", None),
        (b"wait\nready", None),
        (b"not ready", f"{EXPECTED}'^ready$': received 'not ready', then the peer closed the connection"),
    ],
)
def test_the_end_of_the_connection_ends_a_line(answer: bytes, error: str | None) -> None:
    """A peer may close the connection after its answer, with or without a line break."""

    async def dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)

    assert talk(dismiss, send="?\n", expect="^ready$")[1] == str(error)


def test_a_peer_that_closes_the_connection() -> None:
    """The end of the connection is reported with the line before it."""

    async def dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"421 too many connections\r\n")

    assert talk(dismiss, expect="^220 ") == (
        Outcome.FAILED,
        "expected a line that matches '^220 ': received '421 too many connections', "
        "then the peer closed the connection",
    )


def test_a_peer_that_reads_nothing() -> None:
    """A text that the peer does not read costs no more than the timeout."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    error = "sending: not finished within {} s"
    assert talk_until(deaf, error, send="x" * 50_000_000) == (Outcome.FAILED, error)


def test_a_secret_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret from the environment is sent with a line break, and redacted where the peer repeats it."""
    monkeypatch.setenv("REDIS_AUTH", "AUTH hunter22")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR unknown: " + await reader.readline())
        await reader.read()

    steps = [{"send_env": "REDIS_AUTH"}, {"expect": "^-ERR"}, {"expect": r"^\+OK"}]
    expected = EXPECTED + r"'^\\+OK': received '-ERR unknown: ***' within {} s"
    assert talk_until(echo, f"step 3, {expected}", steps=steps)[1] == f"step 3, {expected}"
    monkeypatch.delenv("REDIS_AUTH")
    with pytest.raises(CannotProbe, match="environment variable REDIS_AUTH is not set"):
        talk(echo, steps=steps)


@pytest.mark.parametrize("trusted", [True, False])
def test_starttls_with_a_mail_server(tmp_path: Any, trusted: bool) -> None:
    """SMTP changes to TLS, whose certificate is verified."""
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    (ca if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def main() -> tuple[Outcome, str]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(Sink(), tls_context=context, loop=loop), "127.0.0.1", 0
        )  # fmt: skip
        async with server:
            address = f"localhost:{server.sockets[0].getsockname()[1]}"
            result = await probe_once(
                kind="tcp", address=address, steps=SMTP_STEPS, ca=str(tmp_path / "ca.pem")
            )
        return outcome_and_error(result)

    outcome, error = asyncio.run(main())
    assert outcome is (Outcome.OK if trusted else Outcome.FAILED), error
    assert trusted or error.startswith("step 6, TLS handshake: certificate rejected: ")


def test_an_answer_before_tls_is_not_trusted() -> None:
    """A peer that sends what belongs into TLS before TLS fails."""
    outcome, error = talk(peer(b"220 go\r\n250 OK\r\n"), steps=[{"expect": "^220"}, {"starttls": True}])
    assert (outcome, error) == (Outcome.FAILED, "step 2, TLS handshake: received '250 OK' before TLS began")


def test_an_answer_that_was_received_with_the_last_line_before_tls_is_not_trusted(tmp_path: Path) -> None:
    """What the monitor has received, but not yet read, does not count as received over TLS."""
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    reply = b"220 go\r\n"
    padding = b"x" * (PIECE - len(reply) - 1) + b"\n"

    async def cheat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(padding + reply + b"250 forged\r\n")
        await writer.start_tls(context)
        await reader.readline()
        writer.write(b"500 no\r\n")
        await silent(reader, writer)

    steps = [{"expect": "^220"}, {"starttls": True}, {"send": "NOOP\r\n"}, {"expect": "^250"}]
    outcome, error = talk(cheat, steps=steps, ca=str(tmp_path / "ca.pem"))
    assert (outcome, error) == (
        Outcome.FAILED,
        "step 2, TLS handshake: received '250 forged' before TLS began",
    )


@pytest.mark.parametrize("rest", [b"go ahead\r\n", b""])
def test_the_line_before_tls_may_arrive_in_pieces_or_without_an_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rest: bytes
) -> None:
    """The rest of a line belongs to it, and a reply without a line break, as in XMPP, is complete."""
    if rest:
        monkeypatch.setattr(tcp, "LINE_GRACE", PATIENCE)
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def hesitate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/> ")
        await writer.drain()
        await asyncio.sleep(0.02)
        if rest:
            writer.write(rest)
        await writer.start_tls(context)
        writer.write(b"ready\n")
        await silent(reader, writer)

    steps = [{"expect": "<proceed[^>]*>"}, {"starttls": True}, {"expect": "^ready$"}]
    assert talk(hesitate, steps=steps, ca=str(tmp_path / "ca.pem")) == (Outcome.OK, "None")


def test_ssh() -> None:
    """A real SSH server is known by its banner."""

    async def main() -> tuple[Outcome, str]:
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with asyncssh.listen("127.0.0.1", 0, server_host_keys=[key]) as server:
            address = f"127.0.0.1:{server.get_port()}"
            return outcome_and_error(await probe_once(kind="tcp", address=address, expect=r"^SSH-2\.0-"))

    assert asyncio.run(main()) == (Outcome.OK, "None")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"expect": "("}, "not valid in RE2"),
        ({"expect": r"(a)\1"}, "not valid in RE2"),
        ({"send": r"PING\r\n"}, "write line breaks in double quotes"),
        ({"steps": [{"send": "a", "expect": "b"}]}, "needs exactly one of"),
        ({"steps": [{"expect": "b"}], "expect": "b"}, "'expect' and 'steps' are both set"),
        ({"steps": [{"starttls": True}], "tls": True}, "TLS begins 2 times"),
        ({"send": "PONG ${1}\r\n", "expect": "(a)"}, "needs an 'expect' before it that has 1 groups"),
        ({"steps": [{"expect": "(a)"}, {"expect": "b"}, {"send": "${1}"}]}, "has 1 groups; add them"),
        ({"ca": "ca.pem"}, "'ca' has no effect without TLS"),
        ({"tls": True, "key": "key.pem"}, "'key' needs 'cert'"),
        ({"tls": True, "skip_verify": True, "ca": "ca.pem"}, "'skip_verify' ignores 'ca'"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], error: str) -> None:
    """Settings that cannot work are rejected with what to do."""
    with pytest.raises(ValidationError, match=error.replace("(", r"\(")):
        TypeAdapter(Probe).validate_python({"kind": "tcp", "address": "127.0.0.1:1", **settings})


@pytest.mark.parametrize(("hold", "closed"), [(0.0, False), (PATIENCE, True)])
def test_the_end_of_a_connection_counts_only_within_a_hold(hold: float, closed: bool) -> None:
    """Without a hold, it does not matter whether the end has arrived by the time of the verdict."""

    async def main() -> float | None:
        reader = asyncio.StreamReader()
        reader.feed_eof()
        return await tcp._hold(reader, hold)

    assert (asyncio.run(main()) is not None) is closed
