"""The ports that a relay listens on: free, with a relay that runs, or with somebody else; and descriptors."""

import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from tickertape.cli.check.finding import Finding
from tickertape.cli.check.health_probe import first_line, http_get
from tickertape.process.limits import descriptor_limits
from tickertape.process.listeners import ListenError
from tickertape.relay.settings import RESERVED_DESCRIPTORS, RelaySettings
from tickertape.relay.transport.http_server import listen, same_port_error


def ports(settings: RelaySettings) -> list[Finding]:
    """Look at the main and the ops port; who has one is asked over HTTP, for at most 2 s each question."""
    with contextlib.ExitStack() as held:  # the main port while the other is looked at: they may be the same
        main = _port(held, "main_port", "--port", settings.host, settings.port, lambda: _main(settings))
        own = settings.port if main.state == "ok" and settings.port else -1
        ops = _port(
            held, "ops_port", "--ops-port", settings.ops_host, settings.ops_port, lambda: _ops(settings), own
        )
    return [main, ops, _descriptors(settings)]


def program_on(port: int) -> str:
    """Name and pid of the program that listens on a port; empty when this user may not see it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(Path(table))[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    if not sockets:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(one) in sockets for one in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
        except OSError:
            continue  # it ended, or is somebody else's
    return ""


def _port(
    held: contextlib.ExitStack,
    name: str,
    option: str,
    host: str,
    port: int,
    served: Callable[[], Finding | None],
    own: int = -1,
) -> Finding:
    try:
        held.enter_context(contextlib.closing(listen(host, port, option)))
    except ListenError as error:
        both = same_port_error(error, port, own)
        if both is not error:
            return Finding.error(name, both.message, both.hint)
        found = served()
        if found is not None:
            return found
        who = program_on(port)
        return Finding.error(name, f"{_what(name)} {error.message}{f' ({who})' if who else ''}", error.hint)
    return Finding.ok(
        name, f"{_what(name)} {host}:{port} is free" if port else f"{option} 0: a free port is taken"
    )


def _what(name: str) -> str:
    return name.replace("_", " ")


def _main(settings: RelaySettings) -> Finding | None:
    where = f"main port {settings.host}:{settings.port}"
    status, body = _answer(settings.host, settings.port, "/health", tls=settings.tls_cert is not None)
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if status not in (200, 503) or not isinstance(said, dict) or not {"status", "upstream"} <= said.keys():
        return None
    clients = said.get("connections")
    return Finding.ok(
        "main_port",
        f"{where} is served by a relay that runs already"
        + (f", with {clients} connections" if isinstance(clients, int) else ""),
    )


def _ops(settings: RelaySettings) -> Finding | None:
    host, port = settings.ops_host, settings.ops_port
    status, body = _answer(host, port, "/livez")
    if status != 200 or body.strip() != b"ok":
        return None
    status, body = _answer(host, port, "/readyz")
    text = f"ops port {host}:{port} is served by a relay that runs already and says: {first_line(body)}"
    if status == 200:
        return Finding.ok("ops_port", text)
    return Finding.error(
        "ops_port", text, "see its log; it gets no clients until NATS is there and it has started"
    )


def _answer(host: str, port: int, path: str, *, tls: bool = False) -> tuple[int, bytes]:
    context = None
    if tls:
        # Whom its certificate names is looked at in its file; here it only matters who listens.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return http_get(host, port, path, context)
    except OSError:
        return 0, b""


def _descriptors(settings: RelaySettings) -> Finding:
    _, hard = descriptor_limits()
    asked = settings.max_connections
    needed = asked + RESERVED_DESCRIPTORS
    if hard < needed:
        return Finding.error(
            "descriptors",
            f"{f'--max-connections {asked}' if asked else 'a relay'}: only {hard} descriptors, "
            f"and {needed} are needed",
            "raise the limit (ulimit -Hn, LimitNOFILE)",
        )
    fits = f"--max-connections {asked} fits" if asked else f"up to {hard - RESERVED_DESCRIPTORS} connections"
    return Finding.ok("descriptors", f"{hard} descriptors: {fits}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
