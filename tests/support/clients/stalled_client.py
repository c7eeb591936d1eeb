"""A client whose socket is full: it does not read until a test tells it to."""

import socket
import time

from tickertape.contracts.messages import Events, Gap, relay_message

from tests.support.clients.attacker import upgrade
from tests.support.clients.fake_link import only, texts
from tests.support.clients.feed_client import PATIENCE


class StalledClient:
    """Socket that does not read until it is told to.

    Args:
        address: host and port of the relay.
        target: path of the feed, with its query.
    """

    def __init__(self, address: tuple[str, int], target: str = "/ws") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._socket.sendall(upgrade(target))
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._data += self._socket.recv(1024)
        self._data = self._data.partition(b"\r\n\r\n")[2]

    def read(self, total: int) -> tuple[list[int], list[Gap]]:
        """Read until delivered and dropped events reach a total, or a gap has an unknown size."""
        seqs: list[int] = []
        gaps: list[Gap] = []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            complete = self._complete_frames()
            messages = [relay_message.validate_json(text) for text in texts(complete)] if complete else []
            seqs += [item.seq for message in only(messages, Events) for item in message.events]
            gaps += only(messages, Gap)
            unknown = any(gap.dropped is None for gap in gaps)
            if len(seqs) + sum(gap.dropped or 0 for gap in gaps) >= total:
                return seqs, gaps
            if unknown and seqs and seqs[-1] >= total:
                return seqs, gaps
            self._data += self._socket.recv(1 << 20)
        raise TimeoutError(f"got {len(seqs)} events and {gaps}")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _complete_frames(self) -> bytes:
        end = 0
        data = self._data
        while len(data) >= end + 2:
            size, head = data[end + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if len(data) < end + head:
                    break
                size = int.from_bytes(data[end + 2 : end + head], "big")
            if len(data) < end + head + size:
                break
            if data[end] == 0x89:  # a ping; it need not be answered during this test
                data = data[:end] + data[end + head + size :]
                continue
            end += head + size
        self._data = data[end:]
        return data[:end]
