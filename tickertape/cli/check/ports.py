"""Checks of the ports that a relay listens on, and of the limit on file descriptors."""

import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from tickertape.cli.check.finding import Finding, Name
from tickertape.cli.check.health_probe import first_line, http_get
from tickertape.net.listeners import ListenError
from tickertape.process.limits import descriptor_limits
from tickertape.relay.settings import RESERVED_DESCRIPTORS, RelaySettings
from tickertape.relay.transport.http.server import listen, same_port_error
from tickertape.text import count
from tickertape.urls import host_port


def check_ports(settings: RelaySettings) -> list[Finding]:
    """Check the main port, the ops port and the descriptor limit.

    If a port is in use, a running relay is probed over HTTP, for at most 2 s per request.
    """
    with (
        contextlib.ExitStack() as held
    ):  # keeps the main port bound during the check of the ops port, which may be the same
        main = _check_port(
            held, "main_port", "--port", settings.host, settings.port, lambda: _probe_main_port(settings)
        )
        # Only a port that this check holds can be the cause of a conflict with itself.
        main_port = settings.port if main.state == "ok" and settings.port else -1
        ops = _check_port(
            held,
            "ops_port",
            "--ops-port",
            settings.ops_host,
            settings.ops_port,
            lambda: _probe_ops_port(settings),
            main_port,
        )
    return [main, ops, _check_descriptors(settings)]


def program_on(port: int) -> str:
    """Return name and PID of the program that listens on a port; empty if this user cannot see it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _read_lines(Path(table))[1:]:
            fields = line.split()  # state 0A is LISTEN; addresses and ports are hexadecimal
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    if not sockets:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in sockets for fd in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"{name}, pid {process.name}"
        except OSError:
            continue  # exited, or owned by another user
    return ""


def _check_port(
    held: contextlib.ExitStack,
    name: Name,
    option: str,
    host: str,
    port: int,
    probe: Callable[[], Finding | None],
    main_port: int = -1,
) -> Finding:
    try:
        held.enter_context(contextlib.closing(listen(host, port, option)))
    except ListenError as error:
        if not error.in_use:
            return Finding.error(name, f"{_label(name)} {error.message}", error.hint)
        same_port = same_port_error(error, port, main_port)
        if same_port is not error:
            return Finding.error(name, same_port.message, same_port.hint)
        finding = probe()
        if finding is not None:
            return finding
        program = program_on(port)
        return Finding.error(
            name, f"{_label(name)} {error.message}{f' ({program})' if program else ''}", error.hint
        )
    address = host_port(host, port)
    text = f"{_label(name)} {address} is available" if port else f"{option} 0: a free port is picked"
    return Finding.ok(name, text)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _probe_main_port(settings: RelaySettings) -> Finding | None:
    address = host_port(settings.host, settings.port)
    status, body = _get(settings.host, settings.port, "/health", tls=settings.tls_cert is not None)
    if settings.auth == "certificate" and not status:
        return Finding.warn(
            "main_port",
            f"main port {address} is in use, and its program cannot be asked without a client certificate: "
            "a running relay, or another one",
        )
    try:
        health: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if (
        status not in (200, 503)
        or not isinstance(health, dict)
        or not {"status", "upstream"} <= health.keys()
    ):
        return None
    connections = health.get("connections")
    return Finding.ok(
        "main_port",
        f"main port {address} is in use by a running relay"
        + (f" with {count(connections, 'connection')}" if isinstance(connections, int) else ""),
    )


def _probe_ops_port(settings: RelaySettings) -> Finding | None:
    host, port = settings.ops_host, settings.ops_port
    status, body = _get(host, port, "/livez")
    if status != 200 or body.strip() != b"ok":
        return None
    status, body = _get(host, port, "/readyz")
    text = f"ops port {host_port(host, port)} is in use by a running relay, which reports: {first_line(body)}"
    if status == 200 and b": " in body:
        return Finding.error("ops_port", text, "see its log")
    if status == 200:
        return Finding.ok("ops_port", text)
    return Finding.error(
        "ops_port", text, "check its log; it is ready when it is connected to NATS and has finished starting"
    )


def _get(host: str, port: int, path: str, *, tls: bool = False) -> tuple[int, bytes]:
    context = None
    if tls:
        # The certificate is checked as a file; the probe only determines which program listens.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return http_get(host, port, path, context)
    except OSError:
        return 0, b""


def _check_descriptors(settings: RelaySettings) -> Finding:
    _, hard = descriptor_limits()
    limit = settings.max_connections
    needed = limit + RESERVED_DESCRIPTORS
    if hard < needed:
        return Finding.error(
            "descriptors",
            f"{f'--max-connections {limit}' if limit else 'a relay'}: only {hard} file descriptors, "
            f"but {needed} are needed",
            "raise the limit (ulimit -Hn, LimitNOFILE)",
        )
    capacity = (
        f"enough for --max-connections {limit}"
        if limit
        else f"enough for {count(hard - RESERVED_DESCRIPTORS, 'connection')}"
    )
    return Finding.ok("descriptors", f"{hard} file descriptors, {capacity}")


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
