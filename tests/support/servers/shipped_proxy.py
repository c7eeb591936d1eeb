"""The proxies of ``deploy/haproxy`` and ``deploy/nginx`` with their shipped configuration, for tests."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from tests.support.browser.browser_desk import missing
from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, Relay, eventually
from tests.support.servers.nats_server import free_port

KINDS = ("haproxy", "nginx")
CONFIGS = {
    "haproxy": ROOT / "deploy" / "haproxy" / "haproxy.cfg",
    "nginx": ROOT / "deploy" / "nginx" / "nginx.conf",
}

IPV6_LINES = {"haproxy": ("bind :::8080", ":::8080"), "nginx": ("listen [::]:8080", "[::]:8080")}
"""Commented lines that listen with IPv6, and their addresses."""


def _replaced(text: str, by: dict[str, str]) -> str:
    for old, new in by.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def configured(kind: str, folder: Path, port: int, relays: tuple[Relay, Relay], *, ipv6: bool) -> list[str]:
    """Write the deployment's file with the ports of a test; return the command that runs it."""
    program = shutil.which(kind) or shutil.which(kind, path="/usr/sbin")
    if program is None:
        missing(f"needs {kind}; 'apt-get install {kind}' brings it")
    positions = {}
    for number, relay in enumerate(relays, 1):
        address = "{}:{}".format(*relay.host_port)
        if kind == "haproxy":
            ops = relay.ops_url.rpartition(":")[2]
            positions[f"relay-{number}:8080 port 9464"] = f"{address} port {ops}"
        else:
            positions[f"server relay-{number}:8080"] = f"server {address}"
    text = CONFIGS[kind].read_text(encoding="utf-8")
    if kind == "haproxy":
        text = _replaced(text, {**positions, "bind :8080": f"bind 127.0.0.1:{port}"})
    else:
        text = _replaced(text, {**positions, "listen 8080": f"listen 127.0.0.1:{port}"})
        text = text.replace(" /tmp/", f" {folder}/")
    if ipv6:
        line, address = IPV6_LINES[kind]
        text = _replaced(text, {f"# {line}": line.replace(address, f"[::1]:{port}")})
    file = folder / CONFIGS[kind].name
    file.write_text(text)
    if kind == "haproxy":
        return [program, "-db", "-f", str(file)]
    return [program, "-p", str(folder), "-e", "stderr", "-c", str(file), "-g", "daemon off;"]


@contextmanager
def proxy(kind: str, folder: Path, relays: tuple[Relay, Relay], *, ipv6: bool = False) -> Iterator[int]:
    """Run a proxy in front of two relays; yield its port.

    Args:
        kind: one of ``KINDS``.
        folder: folder for its configuration, its log and its temporary files.
        relays: relays behind it; they may be the same one.
        ipv6: listen on ::1 too.
    """
    port = free_port()
    output = folder / "proxy.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            configured(kind, folder, port, relays, ipv6=ipv6), stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert process.poll() is None, output.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(answers, f"{kind} passes on to a relay")
        yield port
    finally:
        # Kill its workers too, because a graceful stop would wait for clients.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
