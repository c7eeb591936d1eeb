"""Free ports on loopback: a usual one when it can be had, else one that nobody will be given by chance."""

import contextlib
import socket
from collections.abc import Collection
from random import SystemRandom
from typing import Final

HOST: Final = "127.0.0.1"
RANGE: Final = (20_000, 32_000)
"""Below the range from which the system takes ports for outgoing connections: a gateway that closes its port
for a while must find it free afterwards."""

_ATTEMPTS: Final = 1_000


def is_free(port: int) -> bool:
    """True when the port can be listened on now."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


def free_ports(count: int, taken: Collection[int] = ()) -> list[int]:
    """Return so many free ports, all different, and none of those that are taken.

    Raises:
        OSError: there are not so many.
    """
    # Not a seeded generator: two demos with one seed would try the same ports.
    choose = SystemRandom()
    found: list[int] = []
    for _ in range(_ATTEMPTS):
        if len(found) == count:
            return found
        port = choose.randrange(*RANGE)
        if port not in found and port not in taken and is_free(port):
            found.append(port)
    raise OSError(f"no {count} free ports on {HOST} from {RANGE[0]} to {RANGE[1]}; end what holds them")


def port_or_free(given: int | None, usual: int, taken: Collection[int] = ()) -> int:
    """Return the port that the user gave, else the usual one if it is free, else a free one.

    Args:
        given: 0 asks for a free one.
    """
    if given:
        return given
    if given is None and usual not in taken and is_free(usual):
        return usual
    return free_ports(1, taken)[0]
