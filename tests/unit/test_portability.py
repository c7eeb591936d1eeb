"""No module depends on the locale of the host, or on a system clock that is never set."""

import ast
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

PRODUCT = ("contracts", "producers", "relay", "tickertape")

TEXT_CALLS = {"read_text", "write_text", "open", "fdopen", "TemporaryFile", "NamedTemporaryFile"}
"""Calls that encode or decode by the locale, unless an encoding is given or the mode is binary."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield the path and the syntax tree of each module."""
    for root in PRODUCT:
        for path in sorted((ROOT / root).rglob("*.py")):
            if "node_modules" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def name_of(call: ast.Call) -> str:
    """Return the last part of the called name."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def text_modes(call: ast.Call) -> Iterator[str]:
    """Yield the arguments of a call that may be its mode."""
    for argument in [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def depends_on_locale(call: ast.Call) -> bool:
    """Return whether a call reads or writes text in the encoding of the locale."""
    name = name_of(call)
    if name not in TEXT_CALLS or any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return True
    modes = [mode for mode in text_modes(call) if set(mode) <= set("rwxabt+") and mode]
    if name == "open" and not modes:
        # Without a mode it is text, or another function of this name: os.open, or a method of ours.
        return isinstance(call.func, ast.Name)
    return bool(modes) and not any("b" in mode for mode in modes)


def test_text_files_are_utf8_in_every_locale() -> None:
    """Files have the same content whatever LANG was when they were written, and when they are read."""
    found = [
        f"{path}:{node.lineno}: {name_of(node)}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and depends_on_locale(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Path(x).read_text()", True),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("path.open('a')", True),
        ("path.open('rb')", False),
        ("open(fd, mode='rb')", False),
        ("os.fdopen(fd, 'w')", True),
        ("TemporaryFile('w+')", True),
        ("os.open(path, os.O_RDONLY)", False),
        ("stream.open(path, status, now)", False),
    ],
)
def test_a_text_file_is_found(line: str, expected: bool) -> None:
    """The test above finds what it forbids, and nothing else."""
    calls = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    assert any(depends_on_locale(call) for call in calls) is expected


WALL_CLOCK = {
    "contracts/events.py": "the default timestamp of an event",
    "producers/monitor/config/watched_file.py": "the time of a load in a metric",
    "producers/monitor/coordination/peer_updates.py": "the default clock, in place of that of the monitor",
    "producers/monitor/coordination/server_clock.py": "the time of NATS, until it has been asked",
    "producers/monitor/coordination/silences.py": "the end of a silence, and its timestamp",
    "producers/monitor/probe_scheduler.py": "the default clock, in place of that of the monitor",
    "producers/monitor/probes/fix/session.py": "SendingTime of a FIX message",
    "producers/monitor/probes/tls.py": "the expiry of a certificate",
    "relay/auth/client_certificates.py": "the expiry of a certificate",
    "relay/auth/token_service.py": "the expiry of a token",
    "relay/auth/verifier.py": "the expiry of a token",
    "relay/flush_loop.py": "the start of the relay's own clock, which the monotonic clock advances",
    "relay/relay.py": "how far the system clock is from that clock",
    "tickertape/clock.py": "the clock that notices when it is set",
    "tickertape/cli/check/command.py": "the difference to the clock of NATS",
    "tickertape/cli/check/files.py": "the expiry of a certificate",
    "tickertape/cli/check/nats.py": "the difference to the clock of NATS",
    "tickertape/cli/publish.py": "the default timestamp of an event",
    "tickertape/cli/tokens.py": "the expiry of a token",
    "tickertape/demo/log_service.py": "timestamps of log lines",
    "producers/shipper/dry_run/run.py": "the time of events without one",
    "producers/shipper/files/folder_listings.py": "compared with the times of folders",
    "producers/shipper/otlp_input.py": "the time of a report of suppressed records",
    "producers/shipper/otlp/server.py": "the time of records without one",
    "tickertape/nats/backup/make.py": "the time of a backup",
}
"""Modules that read the system clock, which can be set, and what for: never to measure a duration."""


def reads_system_clock(tree: ast.Module) -> bool:
    """Return whether a module uses the system clock, as a call or as a default."""
    clocks = {
        ("time", "time"),
        ("time", "time_ns"),
        ("datetime", "now"),
        ("datetime", "utcnow"),
        ("date", "today"),
    }
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in clocks
        for node in ast.walk(tree)
    )


def test_durations_are_measured_by_the_monotonic_clock() -> None:
    """A module that reads the system clock has a reason; add a new one only for a time that others read."""
    assert {path for path, tree in sources() if reads_system_clock(tree)} == WALL_CLOCK.keys()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("now = time.time()", True),
        ("def f(clock=time.time): pass", True),
        ("datetime.now(UTC)", True),
        ("time.monotonic()", False),
        ("loop.time()", False),
        ("clock.now()", False),
    ],
)
def test_a_use_of_the_system_clock_is_found(line: str, expected: bool) -> None:
    """The test above finds what it is about."""
    assert reads_system_clock(ast.parse(line)) is expected
