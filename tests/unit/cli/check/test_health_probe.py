"""The health check of a container: which arguments use the fast path, and the result of each response."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tickertape.relay.settings import RelaySettings

from tests.support.patience import PATIENCE
from tickertape.cli.check import health_probe
from tickertape.cli.check.health_probe import connect_host, fast_path, http_get, probe


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICKERTAPE_OPS_HOST", "TICKERTAPE_OPS_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """Record which relay would be probed; the exit code is 7."""
    seen: list[tuple[str, int, bool]] = []

    def instead(host: str, port: int, *, ready: bool) -> int:
        seen.append((host, port, ready))
        return 7

    monkeypatch.setattr(health_probe, "probe", instead)
    return seen


@contextmanager
def once(answer: bytes, *, hold: bool = False) -> Iterator[int]:
    """Run a listener with one response, which it may keep open; yield its port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(4096)
                link.sendall(answer)
                if hold:
                    done.wait(PATIENCE)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()


def test_the_defaults_are_the_relays() -> None:
    """The defaults are those of the settings; they are repeated because importing the settings is slow."""
    fields = RelaySettings.model_fields
    assert (fields["ops_host"].default, fields["ops_port"].default) == (
        health_probe.OPS_HOST,
        health_probe.OPS_PORT,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--live"], ("127.0.0.1", 9464, False)),
        (["--ready"], ("127.0.0.1", 9464, True)),
        (["--ops-port", "9", "--live"], ("127.0.0.1", 9, False)),
        (["--live", "--ops-host=::1", "--ops-port=9"], ("::1", 9, False)),
    ],
)
def test_the_fast_path_parses_its_options(
    requested: list[tuple[str, int, bool]], arguments: list[str], expected: tuple[str, int, bool]
) -> None:
    """The fast path reads options like the full command line."""
    assert fast_path(arguments) == 7
    assert requested == [expected]


def test_the_environment_counts(
    requested: list[tuple[str, int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment variables count in any case; an option takes precedence."""
    monkeypatch.setenv("TICKERTAPE_OPS_HOST", "10.0.0.1")
    monkeypatch.setenv("tickertape_ops_port", "5")
    fast_path(["--live"])
    fast_path(["--live", "--ops-port", "6"])
    assert requested == [("10.0.0.1", 5, False), ("10.0.0.1", 6, False)]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--json"],
        ["--live", "--ready"],
        ["--live", "--json"],
        ["--live", "gateways.yaml"],
        ["--live", "--auth", "none"],
        ["--live=false"],
        ["--live", "--ops-port"],
        ["--live", "--ops-port", "abc"],
        ["--live", "--ops-port", "65536"],
        ["--live", "--help"],
    ],
)
def test_all_else_is_read_in_full(requested: list[tuple[str, int, bool]], arguments: list[str]) -> None:
    """Other arguments are left to the full command line, which reports mistakes."""
    assert fast_path(arguments) is None
    assert requested == []


@pytest.mark.parametrize(
    ("answer", "ready", "code", "output"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok\n", False, 0, ""),
        (b"HTTP/1.1 200 OK\r\n\r\nready\n", True, 0, ""),
        (b"HTTP/1.1 503 x\r\n\r\nnot ready\n", True, 1, "reports: not ready; check its log"),
        (b"HTTP/1.1 404 x\r\n\r\n", False, 1, "responded to /livez with 404; check that a relay"),
        (b"HTTP/1.1 302 x\r\n\r\n", True, 1, "responded to /readyz with 302"),
        (b"220 mail\r\n", False, 1, "invalid http response"),
        (b"HTTP/1.1 x\r\n\r\n", False, 1, "invalid http response"),
        (b"", False, 1, "invalid http response"),
    ],
)
def test_each_answer_is_a_code_and_at_most_a_line(
    answer: bytes, ready: bool, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each response becomes an exit code and at most one line; only 200 is success."""
    with once(answer) as port:
        assert probe("127.0.0.1", port, ready=ready) == code
    out = capsys.readouterr().out
    assert output in out
    assert out.count("\n") == code


def test_a_closed_port(capsys: pytest.CaptureFixture[str]) -> None:
    """If the port is closed, the line names the address and what to check."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert probe("0.0.0.0", port, ready=False) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        f"error  no response from a relay at 127.0.0.1:{port}: connection refused; check that it is running"
    )


def test_a_free_port_cannot_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Port 0 cannot be probed, because the port that the system chose is unknown."""
    assert probe("127.0.0.1", 0, ready=False) == 1
    assert "set --ops-port" in capsys.readouterr().out


def test_a_hanging_response_hits_the_deadline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline covers the entire response, including one that never ends."""
    for answer in (b"", b"HTTP/1.1 200 OK\r\n\r\nok\n"):
        with once(answer, hold=True) as port, pytest.raises(TimeoutError):
            http_get("127.0.0.1", port, "/livez", timeout=0.1)
    monkeypatch.setattr(health_probe, "http_get", lambda *_: (_ for _ in ()).throw(TimeoutError("timed out")))
    assert probe("127.0.0.1", 9, ready=False) == 1
    assert "no response within 2 s" in capsys.readouterr().out


def test_a_slow_response_hits_the_deadline() -> None:
    """Single bytes do not extend the deadline, as they would with a timeout per read."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            link, _ = server.accept()
            with link, contextlib.suppress(OSError):
                for _ in range(
                    200
                ):  # a few seconds; a client that waits for its end learns that it is no HTTP
                    link.sendall(b"x")
                    time.sleep(0.01)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(TimeoutError):
            http_get("127.0.0.1", server.getsockname()[1], "/livez", timeout=0.2)
        thread.join()


def test_an_endless_answer_is_cut() -> None:
    """The size of a response is limited."""
    with once(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * health_probe.MAX_RESPONSE_BYTES, hold=True) as port:
        status, body = http_get("127.0.0.1", port, "/", timeout=PATIENCE)
    assert status == 200
    assert len(body) <= health_probe.MAX_RESPONSE_BYTES + 16_384


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_all_addresses_are_reached_on_loopback(host: str, reached: str) -> None:
    """A relay that listens on all addresses, as in a container, is probed on loopback."""
    assert connect_host(host) == reached


def test_the_fast_path_imports_little() -> None:
    """The fast path imports little, because every container runs it every few seconds."""
    code = (
        "import sys; from tickertape.cli.main import main; main(['check', '--live', '--ops-port', '0']);"
        "slow = {'pydantic', 'nats', 'asyncio', 'rich', 'uvicorn', 'orjson', 'logging', 'ssl'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
