"""A WebSocket server that repeats frames as fast as it can, in a process of its own."""

import base64
import hashlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.paths import ROOT

FLOOD = 20.0
"""Seconds for which it sends."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextmanager
def fast_peer(frames: bytes) -> Iterator[int]:
    """Run the server; yield its port. It accepts one connection."""
    command = [sys.executable, "-m", "tests.support.servers.fast_peer"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(frames)
        process.stdin.close()
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _serve(frames: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        link, _ = listener.accept()
    key = re.search(rb"(?i)sec-websocket-key: (\S+)", link.recv(65_536))
    assert key is not None
    accepted = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
    deadline = time.monotonic() + FLOOD
    with link, suppress(OSError):
        link.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accepted
        )
        while time.monotonic() < deadline:
            link.sendall(frames)


if __name__ == "__main__":
    _serve(sys.stdin.buffer.read())
