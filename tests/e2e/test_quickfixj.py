"""The FIX probe and a real engine, QuickFIX/J, whose sessions it must leave intact."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import TypeAdapter
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import Probe, ProbeContext, ProbeSettings, run

from tests.support.browser.browser_desk import missing
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import free_port

APP: Final = Path(__file__).with_name("quickfixj")

DEFAULTS: Final = """
[default]
ConnectionType=acceptor
SocketAcceptPort={port}
SocketAcceptAddress=127.0.0.1
NonStopSession=Y
UseDataDictionary=N
SenderCompID=VENUE
"""

FIX_44: Final = "BeginString=FIX.4.4\nUseDataDictionary=Y"
FIX_50: Final = """BeginString=FIXT.1.1
DefaultApplVerID=FIX.5.0
UseDataDictionary=Y
SenderSubID=GATE
TargetSubID=PROBES"""

SESSIONS: Final = {
    **dict.fromkeys(("OWN", "DESK", "LOST", "ZERO", "AHEAD", "USER"), FIX_44),
    "RESETTING": "BeginString=FIX.4.4\nResetOnLogon=Y",
    "V40": "BeginString=FIX.4.0",
    "V41": "BeginString=FIX.4.1",
    "V42": "BeginString=FIX.4.2",
    "V43": "BeginString=FIX.4.3",
    "V50": FIX_50,
}
"""Sessions of the engine, by the comp id of the other side."""


class Engine:
    """The acceptor, with the sessions by the comp id of the other side."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.port = port
        self._process = process

    def ask(self, *words: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer or words[0] == "logon"
        return answer

    def numbers(self, session: str) -> tuple[int, int]:
        """Return the engine's own next number, and the one that it expects."""
        sender, target = map(int, self.ask("numbers", session).split())
        return sender, target

    def logon(self, session: str) -> list[str]:
        """Return the fields of the latest logon."""
        return self.ask("logon", session).split("|")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Run the engine."""
    if shutil.which("java") is None or not (APP / "lib" / ".ready").exists():
        missing("QuickFIX/J is not installed; make test installs it, with Maven and a JDK")
    port = free_port()
    settings = DEFAULTS.format(port=port)
    for name, lines in SESSIONS.items():
        settings += f"[session]\nTargetCompID={name}\n{lines}\n"
    command = [
        "java",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-cp",
        f"{APP}/lib/*",
        str(APP / "Acceptor.java"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(settings + "end\n")
            process.stdin.flush()
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Engine(process, port)
        finally:
            process.kill()


def probe(engine: Engine, session: str, folder: Path | None = None, **settings: Any) -> Result | None:
    """Probe once with a new monitor, whose numbers are in the folder."""
    context = ProbeContext(monitor="m1", folder=folder)
    parsed: ProbeSettings = TypeAdapter(Probe).validate_python(
        {
            "kind": "fix", "address": f"127.0.0.1:{engine.port}", "sender_comp_id": session,
            "target_comp_id": "VENUE", **settings,
        }
    )  # fmt: skip
    return asyncio.run(run(Check(parsed, 5.0, PATIENCE, 3, 2), context))


def outcome(result: Result | None) -> tuple[Outcome, str | None]:
    assert result is not None
    return result.outcome, result.error


def test_a_probe_continues_its_own_session_and_no_other(engine: Engine, tmp_path: Path) -> None:
    """Three messages per probe, also after a restart, are all that a probe leaves in its session."""
    engine.ask("preset", "DESK", 501, 301)
    for number in (1, 2, 3):
        assert outcome(probe(engine, "OWN", tmp_path)) == (Outcome.OK, None)
        assert engine.numbers("OWN") == (3 * number + 1, 3 * number + 1)
    assert "141=Y" not in engine.logon("OWN")
    assert "34=7" in engine.logon("OWN")
    assert engine.numbers("DESK") == (501, 301)


def test_a_session_of_another_program_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    """A probe does not take over numbers that something else has used; it has no verdict and says why."""
    engine.ask("preset", "DESK", 501, 301)
    for _ in range(2):
        found, error = outcome(probe(engine, "DESK", tmp_path))
        assert found is Outcome.UNKNOWN
        assert error is not None
        assert error.startswith("peer expects sequence number 301, not 1: another program uses this comp id")
    # The engine has sent two logouts; what it expects of the desk is unchanged.
    assert engine.numbers("DESK") == (503, 301)


def test_a_probe_adopts_numbers_if_it_is_told_to(engine: Engine, tmp_path: Path) -> None:
    """After its own numbers were lost, a probe continues from what the engine expects, and keeps that."""
    engine.ask("preset", "LOST", 501, 301)
    assert outcome(probe(engine, "LOST", tmp_path, adopt=True)) == (Outcome.OK, None)
    assert engine.numbers("LOST")[1] == 304
    assert outcome(probe(engine, "LOST", tmp_path)) == (Outcome.OK, None)
    assert engine.numbers("LOST")[1] == 307
    assert "34=304" in engine.logon("LOST")


def test_skipped_numbers_are_filled(engine: Engine, tmp_path: Path) -> None:
    """Numbers that are ahead, as after a crash, are explained to the engine when it requests the messages."""
    assert outcome(probe(engine, "AHEAD", tmp_path)) == (Outcome.OK, None)
    (file,) = tmp_path.glob("*.json")
    file.write_text(json.dumps({"next": 250}))
    for following in (254, 257):
        assert outcome(probe(engine, "AHEAD", tmp_path)) == (Outcome.OK, None)
        assert engine.numbers("AHEAD")[1] == following


def test_resets(engine: Engine, tmp_path: Path) -> None:
    """An engine may reset the numbers at each logon, and the probe does so only if it is told to."""
    for _ in range(2):
        assert outcome(probe(engine, "RESETTING", tmp_path)) == (Outcome.OK, None)
    engine.ask("preset", "ZERO", 501, 301)
    for _ in range(2):
        assert outcome(probe(engine, "ZERO", tmp_path, reset=True)) == (Outcome.OK, None)
        assert engine.numbers("ZERO") == (4, 4)


def test_credentials(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong credentials are a rejected logon, whose reason does not show them; later ones succeed."""
    settings = {"username": "probe", "password_env": "FIX_PASSWORD"}
    monkeypatch.setenv("FIX_PASSWORD", "wrong word")
    assert outcome(probe(engine, "USER", tmp_path, **settings)) == (
        Outcome.FAILED,
        "rejected by the peer: bad credentials: ***",
    )
    monkeypatch.setenv("FIX_PASSWORD", "s3cret word")
    assert outcome(probe(engine, "USER", tmp_path, **settings)) == (Outcome.OK, None)


def test_an_unknown_comp_id(engine: Engine, tmp_path: Path) -> None:
    """An engine closes the connection of a session that it does not know, without a reason."""
    assert outcome(probe(engine, "NO-SUCH-ID", tmp_path)) == (
        Outcome.FAILED,
        "peer closed the connection in response to the logon; check the comp ids",
    )


@pytest.mark.parametrize(
    ("session", "settings", "fields"),
    [
        ("V40", {"begin_string": "FIX.4.0"}, []),
        ("V41", {"begin_string": "FIX.4.1"}, []),
        ("V42", {"begin_string": "FIX.4.2", "logon_fields": {95: 2, 96: "ab"}}, ["95=2", "96=ab"]),
        ("V43", {"begin_string": "FIX.4.3", "username": "u"}, ["553=u"]),
        (
            "V50",
            {
                "begin_string": "FIXT.1.1", "default_appl_ver_id": "FIX.5.0", "username": "u",
                "sender_sub_id": "PROBES", "target_sub_id": "GATE",
            },
            ["1137=7", "50=PROBES", "57=GATE", "553=u"],
        ),
    ],
)  # fmt: skip
def test_versions(
    engine: Engine, tmp_path: Path, session: str, settings: dict[str, Any], fields: list[str]
) -> None:
    """Every version of the session layer works, each with the fields that it has."""
    for following in (4, 7):
        assert outcome(probe(engine, session, tmp_path, **settings)) == (Outcome.OK, None)
        assert engine.numbers(session)[1] == following
    assert set(fields) <= set(engine.logon(session))
