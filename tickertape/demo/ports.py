"""Free ports on loopback: the preferred port if it is free, otherwise one outside of the ephemeral range."""

import contextlib
import socket
from collections.abc import Collection
from random import SystemRandom
from typing import Final

from tickertape.net.loopback import LOOPBACK

HOST: Final = LOOPBACK
RANGE: Final = (20_000, 32_000)
"""Range of the free ports. It lies below the system's range of ephemeral ports: when a gateway closes its
port for a while, no outgoing connection must take the port."""

_ATTEMPTS: Final = 1_000


def is_free(port: int) -> bool:
    """Return whether a port can be listened on now."""
    with (
        socket.socket(socket.AF_INET6 if ":" in HOST else socket.AF_INET) as probe,
        contextlib.suppress(OSError),
    ):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


def free_ports(count: int, taken: Collection[int] = ()) -> list[int]:
    """Return ``count`` different free ports that are not in ``taken``.

    Raises:
        OSError: there are not enough free ports.
    """
    # Not a seeded generator: two demos with the same seed would try the same ports.
    random = SystemRandom()
    ports: list[int] = []
    for _ in range(_ATTEMPTS):
        if len(ports) == count:
            return ports
        port = random.randrange(*RANGE)
        if port not in ports and port not in taken and is_free(port):
            ports.append(port)
    raise OSError(
        f"cannot find {count} free ports on {HOST} from {RANGE[0]} to {RANGE[1]}; stop programs that use them"
    )


def port_or_free(requested: int | None, preferred: int, taken: Collection[int] = ()) -> int:
    """Return the requested port, or the preferred port if it is free, or any free port.

    Args:
        requested: port that the user requested; 0 for any free port.
        preferred: port to use if none was requested.
        taken: ports that this demo uses already.
    """
    if requested:
        return requested
    if requested is None and preferred not in taken and is_free(preferred):
        return preferred
    return free_ports(1, taken)[0]
