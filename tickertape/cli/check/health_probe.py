"""Probe of a relay's ops port for container health checks: ``check --live`` and ``check --ready``.

Invariants:

1. It starts fast: it imports only parts of the standard library, and reads only the settings that it needs.
   If the command line has any other option, the regular command line parser takes over.
2. It finishes within ``DEADLINE``, including the look-up of the host name, and does not connect to NATS.
"""

import errno
import os
import socket
import time

from tickertape.net.loopback import LOOPBACK
from tickertape.process.console import print_line
from tickertape.text import printable
from tickertape.urls import host_port

# Not typing.TYPE_CHECKING: importing typing would slow down the probe.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

DEADLINE = 2.0
"""Seconds for a probe; health checks of containers usually time out after 3 or more."""

OPS_HOST = LOOPBACK
OPS_PORT = 9464
"""Default port. Both defaults are duplicated from ``RelaySettings``; a test compares them."""

MAX_RESPONSE_BYTES = 64 * 1024
"""Maximum bytes of a response that are read."""

_CONNECT_HOSTS = {"": LOOPBACK, "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (connect addresses)


def fast_path(arguments: "Sequence[str]") -> int | None:
    """Run the probe without the regular command line parser if the arguments are simple enough.

    Returns:
        the exit code, or None if the regular parser must handle the arguments.
    """
    # Like ``resolve.find_values``, which ignores the case of the variables' names.
    environment = {name.upper(): value for name, value in os.environ.items()}
    if "TICKERTAPE_CONFIG" in environment or "TICKERTAPE_SERVE_CONFIG" in environment:
        return None

    def variable(name: str, default: object) -> str:
        return environment.get(
            f"TICKERTAPE_SERVE_{name}", environment.get(f"TICKERTAPE_{name}", str(default))
        )

    options = {"--ops-host": variable("OPS_HOST", OPS_HOST), "--ops-port": variable("OPS_PORT", OPS_PORT)}
    probes = []
    rest = list(arguments)
    while rest:
        name, mark, value = rest.pop(0).partition("=")
        if name in ("--live", "--ready") and not mark:
            probes.append(name)
        elif name in options and (mark or rest):
            options[name] = value if mark else rest.pop(0)
        else:
            return None
    port = options["--ops-port"]
    if len(probes) != 1 or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        return None
    return probe(options["--ops-host"], int(port), ready=probes == ["--ready"])


def probe(host: str, port: int, *, ready: bool) -> int:
    """Probe a relay, and print one line if it fails.

    Args:
        host, port: address of the ops port.
        ready: whether to probe readiness instead of liveness.

    Returns:
        0 if the relay is ready or live, 1 otherwise.
    """
    address = host_port(connect_host(host), port)
    if port == 0:
        print_line("error  --ops-port 0 picks a random port, which cannot be probed; set --ops-port")
        return 1
    path = "/readyz" if ready else "/livez"
    try:
        status, body = http_get(host, port, path)
    except OSError as error:
        print_line(
            f"error  no response from a relay at {address}: {describe_error(error)}; "
            "check that it is running with this --ops-host and --ops-port"
        )
        return 1
    if status == 200:
        return 0
    if ready and status == 503:
        print_line(f"error  relay at {address} reports: {first_line(body)}; check its log")
    else:
        print_line(
            f"error  {address} responded to {path} with {status}; check that a relay uses this --ops-port"
        )
    return 1


def http_get(
    host: str, port: int, path: str, tls: "ssl.SSLContext | None" = None, timeout: float = DEADLINE
) -> tuple[int, bytes]:
    """Send a GET request to a relay.

    Args:
        host, port: address that the relay listens on; wildcard addresses are replaced by loopback.
        path: path of the request.
        tls: TLS context; None for plain HTTP.
        timeout: total seconds for the request.

    Returns:
        status code and body.

    Raises:
        OSError: there is no valid HTTP response; TimeoutError if the request takes too long.
    """
    deadline = time.monotonic() + timeout
    host = connect_host(host)
    try:
        sock = _connect(host, port, deadline)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host} is not a host name") from error
    try:
        sock.settimeout(_remaining(deadline))
        if tls is not None:
            sock = tls.wrap_socket(sock)
        name = host_port(host, port)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        data = b""
        while len(data) < MAX_RESPONSE_BYTES:
            # A socket's timeout holds for each call, so a peer that sends byte by byte would never exceed it.
            sock.settimeout(_remaining(deadline))
            block = sock.recv(16_384)
            if not block:
                break
            data += block
    finally:
        sock.close()
    head, _, body = data.partition(b"\r\n\r\n")
    fields = head.split(None, 2)
    if not head.startswith(b"HTTP/1.") or len(fields) < 2 or not fields[1].isdigit():
        raise OSError("invalid HTTP response")
    return int(fields[1]), body


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that accepts the connection."""
    try:
        socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        # Imported late, since most probes have an address. A look-up can only be abandoned in a thread.
        from tickertape.net.outgoing import connect_blocking

        return connect_blocking(host, port, _remaining(deadline))
    return socket.create_connection((host, port), _remaining(deadline))


def connect_host(host: str) -> str:
    """Return the address to connect to for a server on this machine that listens on ``host``."""
    return _CONNECT_HOSTS.get(host, host)


def describe_error(error: OSError) -> str:
    """Return a short description of a failed request."""
    if isinstance(error, TimeoutError) and not error.strerror:
        return f"no response within {DEADLINE:.0f} s"
    return (error.strerror or str(error)).lower()


def first_line(body: bytes) -> str:
    """Return the first line of a body, shortened and printable."""
    text = body.decode("utf-8", "replace").strip().partition("\n")[0][:100]
    return printable(text) or "(empty response)"


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
