"""Whether a relay answers on its ops port, for a container's health check: ``check --live``, ``--ready``.

Invariants:

1. It starts fast: nothing is imported but a part of the standard library, and no settings are read that
   it does not need. An option that is not known here leaves all of it to the whole command line.
2. An answer is there within ``DEADLINE`` once the host's name is looked up; NATS is never asked.
"""

import errno
import os
import socket
import time

from tickertape.text import printable
from tickertape.urls import host_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

DEADLINE = 2.0
"""Seconds; health checks of containers wait 3 and more."""

OPS_HOST = "127.0.0.1"
OPS_PORT = 9464
"""As in ``RelaySettings``; a test compares them."""

MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read."""

_REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (where it is reached)


def early(arguments: "Sequence[str]") -> int | None:
    """Do it without the whole command line, if these arguments ask for nothing else.

    Returns:
        the exit code, or None when the command line has to be read in full.
    """
    known = {name.upper(): value for name, value in os.environ.items()}
    options = {
        "--ops-host": known.get("TICKERTAPE_OPS_HOST", OPS_HOST),
        "--ops-port": known.get("TICKERTAPE_OPS_PORT", str(OPS_PORT)),
    }
    asked = []
    rest = list(arguments)
    while rest:
        name, mark, value = rest.pop(0).partition("=")
        if name in ("--live", "--ready") and not mark:
            asked.append(name)
        elif name in options and (mark or rest):
            options[name] = value if mark else rest.pop(0)
        else:
            return None
    port = options["--ops-port"]
    if len(asked) != 1 or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        return None
    return run(options["--ops-host"], int(port), ready=asked == ["--ready"])


def run(host: str, port: int, *, ready: bool) -> int:
    """Ask, and say in one line what is wrong.

    Args:
        host, port: of the ops port.
        ready: whether clients should be sent there; else whether it lives.

    Returns:
        0 when the relay says yes, 1 otherwise.
    """
    where = f"{connect_host(host)}:{port}"
    if port == 0:
        print("error  --ops-port 0 takes a free port, which is not known here; give it a port")
        return 1
    path = "/readyz" if ready else "/livez"
    try:
        status, body = http_get(host, port, path)
    except OSError as error:
        print(
            f"error  no relay answers at {where}: {reason(error)}; "
            "see whether it runs, and with this --ops-host and --ops-port"
        )
        return 1
    if status == 200:
        return 0
    said = first_line(body)
    if ready and status == 503:
        print(f"error  the relay at {where} says: {said}; its log says what it waits for")
    else:
        print(
            f"error  {where} answers {path} with {status}; see whether it is a relay that has this --ops-port"
        )
    return 1


def http_get(
    host: str, port: int, path: str, tls: "ssl.SSLContext | None" = None, timeout: float = DEADLINE
) -> tuple[int, bytes]:
    """Get a page of a relay.

    Args:
        host, port: that it listens on; an address that stands for all is asked on loopback.
        path: of the page.
        tls: to encrypt with.
        timeout: seconds for all of it.

    Returns:
        status and body.

    Raises:
        OSError: there is no answer, or none in HTTP; TimeoutError when it takes too long.
    """
    ends = time.monotonic() + timeout
    host = connect_host(host)
    try:
        link = socket.create_connection((host, port), timeout)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host} is not a host name") from error
    try:
        link.settimeout(_left(ends))
        if tls is not None:
            link = tls.wrap_socket(link)
        name = host_port(host, port)
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        data = b""
        while len(data) < MAX_ANSWER:
            link.settimeout(_left(ends))
            block = link.recv(16_384)
            if not block:
                break
            data += block
    finally:
        link.close()
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not head.startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        raise OSError("what answers there is no HTTP")
    return int(words[1]), body


def connect_host(host: str) -> str:
    """Address by which this machine reaches what listens on ``host``."""
    return _REACHED_AT.get(host, host)


def reason(error: OSError) -> str:
    """Why there is no answer, in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {DEADLINE:.0f} s"
    return (error.strerror or str(error)).lower()


def first_line(body: bytes) -> str:
    """What a page says first, for one line of ours."""
    text = body.decode("utf-8", "replace").strip().partition("\n")[0][:100]
    return printable(text) or "nothing"


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
