"""``tickertape tail`` with a relay that requires tokens, and with one that has a private certificate."""

import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson
import pytest
import trustme
from jwt import PyJWS

from tests.support.clients.feed_client import jetstream, line, publish, run
from tests.support.paths import ROOT
from tests.support.programs import relay_process
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import PATIENCE, Relay, command, environment, eventually
from tests.support.servers.client_authority import ClientAuthority
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.tail.token import TokenSource

KEY: Final = "a key of this test, long enough for HS256"
HINT: Final = "set --token-file or TICKERTAPE_TOKEN; 'tickertape token mint' creates a token"


def token(life: float = 3600, key: str = KEY) -> str:
    """Return a token that permits all subjects and expires after ``life`` seconds."""
    claims = {"sub": "reader", "exp": time.time() + life, "tickertape": {"subjects": [">"]}}
    return PyJWS().encode(orjson.dumps(claims), key.encode(), "HS256")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay that requires tokens."""
    env = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": KEY}
    with (
        NatsServer(tmp_path_factory.mktemp("nats")) as server,
        Relay(server.url, "--auth", "jwt", **env) as running,
    ):
        yield running


class Tail:
    """Running ``tickertape tail`` and its output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out_pipe, self.notes_pipe = ProgramOutput(process.stdout), ProgramOutput(process.stderr)

    @property
    def out(self) -> list[str]:
        """Lines of its standard output."""
        return self.out_pipe.lines

    @property
    def notes(self) -> list[str]:
        """Lines of its standard error."""
        return self.notes_pipe.lines

    @property
    def messages(self) -> list[str]:
        """Messages of the printed log events."""
        return [orjson.loads(text)["event"]["message"] for text in self.out]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; include standard error in the failure."""
        try:
            eventually(condition, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self.notes}") from None

    def wait_for_note(self, text: str) -> None:
        """Wait until a line on standard error contains a text."""
        self.until(lambda: any(text in note for note in self.notes), text)


@contextmanager
def tail(url: str, *options: str, **env: str) -> Iterator[Tail]:
    """Run ``tickertape tail`` and check that its output never contains a token."""
    process = subprocess.Popen(
        command("tail", "--url", url, "--json", *options),
        cwd=ROOT,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Tail(process)
    try:
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE)
        running.out_pipe.close()
        running.notes_pipe.close()
    assert "eyJ" not in "".join(running.out + running.notes)


def rejected(url: str, *options: str, **env: str) -> list[str]:
    """Run a tail that must end with exit code 1, and return its standard error."""
    with tail(url, *options, **env) as running:
        assert running.process.wait(PATIENCE) == 1
    return running.notes


def accepted_connections(relay: Relay) -> str:
    """Return the relay's metric of accepted connections."""
    with urllib.request.urlopen(f"{relay.ops_url}/metrics") as response:
        lines: list[str] = response.read().decode().splitlines()
    return next(text for text in lines if text.startswith('tickertape_handshakes_total{result="accepted"}'))


def publish_lines(relay: Relay, *messages: str) -> None:
    """Publish log lines."""

    async def work() -> None:
        async with jetstream(relay.nats_url) as js:
            for message in messages:
                await publish(js, line(message))

    run(work())


def wait_until_following(relay: Relay, running: Tail) -> None:
    """Wait until the tail prints a line published now, or until it ends."""
    mark = f"mark {time.monotonic_ns()}"

    def seen() -> bool:
        publish_lines(relay, mark)
        return mark in running.messages or running.process.poll() is not None

    running.until(seen, "the tail follows")


def test_a_token_from_the_environment_or_a_file_is_accepted(relay: Relay, tmp_path: Path) -> None:
    """A token from the environment or a file is accepted; the file has precedence."""
    file = tmp_path / "token"
    file.write_text(f"{token()}\n")
    with tail(relay.ws_url, TICKERTAPE_TOKEN=token()) as running:
        wait_until_following(relay, running)
        assert running.process.poll() is None
    with tail(relay.ws_url, "--token-file", str(file), TICKERTAPE_TOKEN="a.b.c") as running:
        wait_until_following(relay, running)
        assert running.process.poll() is None


def test_it_says_what_to_do_without_a_token(relay: Relay) -> None:
    """Without a token it prints one line that says how to set one, and ends with exit code 1."""
    assert rejected(relay.ws_url) == [f"tickertape tail: the relay requires a token; {HINT}\n"]


def test_it_says_what_to_do_with_a_bad_token(relay: Relay, tmp_path: Path) -> None:
    """With an invalid token it prints one line with the reason, ends with exit code 1, and does not retry."""
    [note] = rejected(relay.ws_url, TICKERTAPE_TOKEN=token(key="x" * 40))
    assert note.startswith("tickertape tail: the relay rejected the token: the token is not signed")
    assert note.endswith(f"; {HINT}\n")
    [note] = rejected(relay.ws_url, "--token-file", str(tmp_path / "none"))
    assert "none cannot be read (No such file or directory); set --token-file" in note
    [note] = rejected(relay.ws_url, TICKERTAPE_TOKEN="secret words")
    assert note == (
        "tickertape tail: TICKERTAPE_TOKEN contains no valid token: expected three parts separated by dots; "
        f"{HINT}\n"
    )


def test_an_expired_token_ends_it(relay: Relay) -> None:
    """The user is warned before a token from the environment expires; then the program ends."""
    for life in (4, 16, 64, 256):
        with tail(relay.ws_url, TICKERTAPE_TOKEN=token(life)) as running:
            assert running.process.wait(life + PATIENCE) == 1
        if "the token expired at" not in running.notes[-1]:
            break  # the token had expired before the tail connected
    assert any("use --token-file to renew it" in note for note in running.notes)
    assert running.notes[-1] == (
        f"tickertape tail: the relay rejected the token: the token has expired; {HINT}\n"
    )


def test_a_renewed_file_renews_the_session(relay: Relay, tmp_path: Path) -> None:
    """A new token in the file renews the running session without losing or repeating an event."""
    file = tmp_path / "token"
    for life in (15, 30, 59):
        ends = time.time() + life
        file.write_text(token(life))
        with tail(relay.ws_url, "--token-file", str(file)) as running:
            running.until(lambda: bool(running.notes), "a note about the token's expiry")
            wait_until_following(relay, running)
            if running.process.poll() is not None:
                continue  # the token had expired before that
            connections = accepted_connections(relay)
            file.write_text(token())
            in_time = time.time() < ends - life / 2
            before = len(running.messages)
            while time.time() < ends + 2:
                publish_lines(relay, f"line {time.monotonic_ns()}")
                time.sleep(0.2)
            if not in_time:
                continue  # the machine was too busy to renew the token before its end
            publish_lines(relay, "the last")
            running.until(lambda: "the last" in running.messages, "the last line")
            sequences = [orjson.loads(text)["seq"] for text in running.out]
            assert len(sequences) > before
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
            assert f"write a new one to {file}" in running.notes[0]
            assert len(running.notes) == 1
            assert accepted_connections(relay) == connections
            return
    raise AssertionError("no token was renewed before its end")


def test_a_new_token_in_a_file_is_returned_once(tmp_path: Path) -> None:
    """A new token in the file is returned once, and again if it was not delivered."""
    file = tmp_path / "token"
    first, second = token(), token(60)
    file.write_text(first)
    source = TokenSource(None, file)
    assert source.read() == first
    assert source.changed() is None
    file.write_text("half a tok")
    assert source.changed() is None
    file.write_text(f" {second}\n")
    assert source.changed() == second
    assert source.changed() is None
    source.forget()
    assert source.changed() == second
    assert second not in repr(source)


def test_a_private_certificate_needs_its_ca(nats_server: NatsServer, tmp_path: Path) -> None:
    """With ``--ca`` a private certificate is trusted; without it the error says to set ``--ca``."""
    ca = trustme.CA()
    pem, chain = tmp_path / "ca.pem", tmp_path / "relay.pem"
    ca.cert_pem.write_to_path(str(pem))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    with Relay(nats_server.url, "--tls-cert", str(chain)) as relay:
        assert relay.ws_url.startswith("wss://")
        with tail(relay.ws_url, "--ca", str(pem)) as running:
            wait_until_following(relay, running)
            assert running.process.poll() is None
        # uvloop may hide the reason of the first failed handshake.
        note = rejected(relay.ws_url)[-1]
        assert "is not trusted: " in note
        assert note.endswith("set --ca to the CA that signed it\n")
        [note] = rejected(relay.ws_url, "--ca", str(tmp_path / "none"))
        assert note.endswith("none cannot be read: No such file or directory; use a PEM file\n")


def test_a_client_certificate_is_presented(nats_server: NatsServer, tmp_path: Path) -> None:
    """With ``--cert`` the client needs no token; a file that cannot be used is an error with one line."""
    ca, authority = trustme.CA(), ClientAuthority(tmp_path / "clients")
    pem, chain, grants = tmp_path / "ca.pem", tmp_path / "relay.pem", tmp_path / "grants.json"
    ca.cert_pem.write_to_path(str(pem))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    grants.write_text('[{"name": "cn:desk", "grant": {"subjects": [">"]}}]')
    options = ("--tls-client-ca", str(authority.ca), "--tls-client-grants", str(grants))
    with Relay(nats_server.url, "--auth", "certificate", "--tls-cert", str(chain), *options) as relay:
        with tail(relay.ws_url, "--ca", str(pem), "--cert", str(authority.issue("cn:desk"))) as running:
            wait_until_following(relay, running)
            assert running.process.poll() is None
        [note] = rejected(relay.ws_url, "--ca", str(pem), "--cert", str(pem))
        assert f"--cert {pem} cannot be used: " in note


def test_a_url_with_an_invalid_host_name_ends_it() -> None:
    """A URL with an invalid host name ends it with one line and no retry, since it can never resolve."""
    done = relay_process.run("tail", "--url", "ws://a..b/ws")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["tickertape tail: ws://a..b/ws contains an invalid host name"]
