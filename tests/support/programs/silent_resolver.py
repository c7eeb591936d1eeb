"""A resolver that never answers, for one program: its look-ups of names hang, as when the DNS server is down.

The program runs in a mount namespace of its own, in which ``/etc/resolv.conf`` names an address where nothing
answers. Where namespaces are not permitted, the tests are skipped.
"""

import asyncio
import contextlib
import functools
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.patience import PATIENCE

HANGS: Final = 'import socket; socket.getaddrinfo("name.invalid.example", 80)'
"""Program that never ends if its look-ups hang."""

_STARTUP: Final = 5.0
"""Seconds after which a program is assumed to have begun its look-up, where queries cannot be received."""

_ADDRESSES: Final = ("127.0.0.153", "192.0.2.53")
"""A loopback address, if this user may listen on port 53, and one that is never assigned (RFC 5737)."""


@dataclass(frozen=True, slots=True)
class SilentResolver:
    """Running resolver.

    Attributes:
        prefix: beginning of a command line that runs a program with it.
        server: socket that receives the queries; None if this user may not listen on port 53.
    """

    prefix: tuple[str, ...]
    server: socket.socket | None

    async def queried(self) -> None:
        """Wait until a program looks up a name."""
        if self.server is None:
            await asyncio.sleep(_STARTUP)
        else:
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_recv(self.server, 512)


@contextlib.contextmanager
def silent_resolver(folder: Path) -> Iterator[SilentResolver]:
    """Run the resolver.

    Args:
        folder: folder for the configuration.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        address, bound = _ADDRESSES[0], True
        server.setblocking(False)
        try:
            server.bind((address, 53))
        except OSError:
            address, bound = _ADDRESSES[1], False
        file = folder / "resolv.conf"
        file.write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(file)]
        if not _hangs(tuple(command)):
            pytest.skip("needs user and mount namespaces")
        with contextlib.suppress(BlockingIOError):
            while bound:
                server.recv(512)
        yield SilentResolver(tuple(command), server if bound else None)


@functools.cache
def _hangs(command: tuple[str, ...]) -> bool:
    try:
        subprocess.run([*command, sys.executable, "-c", HANGS], capture_output=True, timeout=3, check=False)
    except subprocess.TimeoutExpired:
        return True
    except OSError:
        pass
    return False
