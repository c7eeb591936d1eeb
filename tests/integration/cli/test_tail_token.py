"""``tickertape tail`` on a real relay that asks for tokens, and on one with a private certificate."""

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
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.tail.token import TokenSource

KEY: Final = "a key of this test, long enough for HS256"
HINT: Final = "set --token-file or TICKERTAPE_TOKEN; 'tickertape token mint' creates a token"


def token(life: float = 3600, key: str = KEY) -> str:
    """A token that grants everything; ``life`` in seconds."""
    claims = {"sub": "reader", "exp": time.time() + life, "tickertape": {"subjects": [">"]}}
    return PyJWS().encode(orjson.dumps(claims), key.encode(), "HS256")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that asks for tokens."""
    env = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": KEY}
    with (
        NatsServer(tmp_path_factory.mktemp("nats")) as server,
        Relay(server.url, "--auth", "jwt", **env) as running,
    ):
        yield running


class Tail:
    """One ``tickertape tail``, and what it printed."""

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
        """Of the log events that it printed."""
        return [orjson.loads(text)["event"]["message"] for text in self.out]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something, while it runs."""
        try:
            eventually(condition, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self.notes}") from None

    def noted(self, text: str) -> None:
        """Wait for a line on standard error."""
        self.until(lambda: any(text in note for note in self.notes), text)


@contextmanager
def tail(url: str, *options: str, **env: str) -> Iterator[Tail]:
    """Run it; what it printed never has a token."""
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


def refused(url: str, *options: str, **env: str) -> list[str]:
    """Run one that must end by itself with 1, and return what it said."""
    with tail(url, *options, **env) as running:
        assert running.process.wait(PATIENCE) == 1
    return running.notes


def accepted(relay: Relay) -> str:
    """How many connections the relay took, as it counts them."""
    with urllib.request.urlopen(f"{relay.ops_url}/metrics") as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return next(text for text in lines if text.startswith('tickertape_handshakes_total{result="accepted"}'))


def tell(relay: Relay, *messages: str) -> None:
    """Publish log lines."""

    async def work() -> None:
        async with jetstream(relay.nats_url) as js:
            for message in messages:
                await publish(js, line(message))

    run(work())


def follows(relay: Relay, running: Tail) -> None:
    """Wait until it prints what is published from now on, or ends: the first such line is its own."""
    mark = f"mark {time.monotonic_ns()}"

    def seen() -> bool:
        tell(relay, mark)
        return mark in running.messages or running.process.poll() is not None

    running.until(seen, "the tail follows")


def test_a_token_in_the_environment_or_a_file_lets_it_in(relay: Relay, tmp_path: Path) -> None:
    """The file comes first, and may end in a new line."""
    file = tmp_path / "token"
    file.write_text(f"{token()}\n")
    with tail(relay.ws_url, TICKERTAPE_TOKEN=token()) as running:
        follows(relay, running)
        assert running.process.poll() is None
    with tail(relay.ws_url, "--token-file", str(file), TICKERTAPE_TOKEN="a.b.c") as running:
        follows(relay, running)
        assert running.process.poll() is None


def test_it_says_what_to_do_without_a_token(relay: Relay) -> None:
    """One line, and exit code 1, once the relay has waited in vain."""
    assert refused(relay.ws_url) == [f"tickertape tail: the relay requires a token; {HINT}\n"]


def test_it_says_what_to_do_with_a_bad_token(relay: Relay, tmp_path: Path) -> None:
    """One line with the relay's reason, and exit code 1; it does not try again."""
    [note] = refused(relay.ws_url, TICKERTAPE_TOKEN=token(key="x" * 40))
    assert note.startswith("tickertape tail: the relay rejected the token: the token is not signed")
    assert note.endswith(f"; {HINT}\n")
    [note] = refused(relay.ws_url, "--token-file", str(tmp_path / "none"))
    assert "none cannot be read (No such file or directory); set --token-file" in note
    [note] = refused(relay.ws_url, TICKERTAPE_TOKEN="secret words")
    assert note == (
        "tickertape tail: TICKERTAPE_TOKEN contains no valid token: expected three parts separated by dots; "
        f"{HINT}\n"
    )


def test_an_expired_token_ends_it(relay: Relay) -> None:
    """Who gave a token once is told before its end, and at its end."""
    for life in (4, 16, 64, 256):
        with tail(relay.ws_url, TICKERTAPE_TOKEN=token(life)) as running:
            assert running.process.wait(life + PATIENCE) == 1
        if "the token expired at" not in running.notes[-1]:
            break  # else it had ended before the tail had started
    assert any("use --token-file to renew it" in note for note in running.notes)
    assert running.notes[-1] == (
        f"tickertape tail: the relay rejected the token: the token has expired; {HINT}\n"
    )


def test_a_renewed_file_renews_the_session(relay: Relay, tmp_path: Path) -> None:
    """The next token goes to the running session: nothing is lost or repeated, and no connection is made."""
    file = tmp_path / "token"
    for life in (15, 30, 59):
        ends = time.time() + life
        file.write_text(token(life))
        with tail(relay.ws_url, "--token-file", str(file)) as running:
            running.until(lambda: bool(running.notes), "it tells of the token's end")
            follows(relay, running)
            if running.process.poll() is not None:
                continue  # the token had ended before that
            connections = accepted(relay)
            file.write_text(token())
            in_time = time.time() < ends - life / 2
            before = len(running.messages)
            while time.time() < ends + 2:
                tell(relay, f"line {time.monotonic_ns()}")
                time.sleep(0.2)
            if not in_time:
                continue  # the machine was too busy to renew it before its end
            tell(relay, "the last")
            running.until(lambda: "the last" in running.messages, "the last line")
            sequences = [orjson.loads(text)["seq"] for text in running.out]
            assert len(sequences) > before
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
            assert f"write a new one to {file}" in running.notes[0]
            assert len(running.notes) == 1
            assert accepted(relay) == connections
            return
    raise AssertionError("no token was renewed before its end")


def test_what_is_news_in_a_file(tmp_path: Path) -> None:
    """A token once; what is no token never; one that did not get through, again."""
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


def test_a_private_ca_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    """With its CA the relay is trusted, without it the reader is told what to do."""
    ca = trustme.CA()
    pem, chain = tmp_path / "ca.pem", tmp_path / "relay.pem"
    ca.cert_pem.write_to_path(str(pem))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    with Relay(nats_server.url, "--tls-cert", str(chain)) as relay:
        assert relay.ws_url.startswith("wss://")
        with tail(relay.ws_url, "--ca", str(pem)) as running:
            follows(relay, running)
            assert running.process.poll() is None
        # uvloop may hide the first time why a handshake broke off.
        note = refused(relay.ws_url)[-1]
        assert "is not trusted: " in note
        assert note.endswith("set --ca to the CA that signed it\n")
        [note] = refused(relay.ws_url, "--ca", str(tmp_path / "none"))
        assert note.endswith("none cannot be read: No such file or directory; use a PEM file\n")


def test_an_address_without_a_host_name_ends_it() -> None:
    """With one line: it is not tried again, since it will never be a name."""
    told = relay_process.run("tail", "--url", "ws://a..b/ws")
    assert told.returncode == 1
    assert told.stderr.splitlines() == ["tickertape tail: ws://a..b/ws contains an invalid host name"]
