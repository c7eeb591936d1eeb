"""Check of an archive: the snapshot of one stream, as nats-server sends it.

There are two formats, both compressed with S2. Up to 2.14 a snapshot is a tar file of the server's own
files. From 2.15 on it is a list of messages after the state of the stream, which ends with an empty entry. A
server reads the formats up to its own.
"""

import io
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import orjson

from tickertape.nats.backup.s2_reader import ArchiveError, S2Reader, read_varint

MAGIC: Final = b"NATSARC1"
"""First bytes of the newer format."""

MAX_NAME: Final = 64 * 1024
"""Maximum bytes of a subject; the server's own limit for a whole protocol line is lower."""

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Maximum bytes of a message: the highest ``max_payload`` of a server."""

_MAX_FILE: Final = 1024 * 1024
"""Maximum bytes of a file with a description."""

_MAX_HEADER: Final = 64
"""Bytes that hold the numbers of an entry: five of at most ten bytes each."""

_FILES: Final = re.compile(r"meta\.inf|meta\.sum|msgs/[0-9]{1,10}\.blk|msgs/index\.db")
"""Names of the files in a tar file; there are no others without consumers."""

_LINE_FEEDS: Final = re.compile(r"[\r\n]")


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of an archive.

    Attributes:
        format: ``archive`` for the format of nats-server 2.15 and newer, ``tar`` for that of older servers.
        messages: number of messages; None in a tar file, where they are not counted.
        last_seq: last sequence of the stream; None in a tar file.
        size: bytes of the archive without compression.
    """

    format: str
    messages: int | None
    last_seq: int | None
    size: int


def scan(read: Callable[[int], bytes], stream: str) -> Contents:
    """Read an archive to its end and check its structure.

    Args:
        read: reads up to a number of bytes; returns fewer only at the end.
        stream: name of the stream in NATS.

    Raises:
        ArchiveError: the archive is damaged, or of another stream.
    """
    reader = _Counted(S2Reader(read))
    if reader.peek(len(MAGIC)) != MAGIC:
        _scan_tar(reader, stream)
        return Contents("tar", None, None, reader.position)
    reader.skip(len(MAGIC))
    messages, last_seq = _scan_messages(reader)
    if reader.peek(1):
        raise ArchiveError("it continues after its end")
    return Contents("archive", messages, last_seq, reader.position)


class _Counted:
    """Reader that knows its position and can look ahead."""

    def __init__(self, reader: S2Reader) -> None:
        self.position = 0
        self._reader = reader
        self._ahead = b""

    def peek(self, count: int) -> bytes:
        """Return the next bytes without moving; fewer at the end."""
        if len(self._ahead) < count:
            self._ahead += self._reader.read(count - len(self._ahead))
        return self._ahead[:count]

    def read(self, count: int) -> bytes:
        """Read a number of bytes, or fewer at the end."""
        ahead, self._ahead = self._ahead[:count], self._ahead[count:]
        data = ahead if len(ahead) == count else ahead + self._reader.read(count - len(ahead))
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        """Skip a number of bytes.

        Raises:
            ArchiveError: the archive has fewer.
        """
        from_ahead = min(count, len(self._ahead))
        self._ahead = self._ahead[from_ahead:]
        if self._reader.skip(count - from_ahead) < count - from_ahead:
            raise ArchiveError("it is truncated")
        self.position += count


def _scan_messages(reader: _Counted) -> tuple[int, int]:
    """Check an archive of messages; return their number and the stream's last sequence."""
    name, _, header_size, payload_size = _entry(reader)
    if name != b"state.json" or header_size or payload_size > _MAX_FILE:
        raise ArchiveError("it does not begin with the state of the stream")
    state = _object(reader.read(payload_size))
    first, last = state.get("first_seq"), state.get("last_seq")
    consumers = state.get("consumer_count", 0)
    if not isinstance(first, int) or not isinstance(last, int) or not isinstance(consumers, int):
        raise ArchiveError("the state of the stream is incomplete")
    messages, previous = 0, max(0, first - 1)
    while True:
        name, sequence, header_size, payload_size = _entry(reader)
        if sequence == 0 and name.startswith(b"consumers/") and messages == 0 and consumers > 0:
            consumers -= 1
        elif sequence == 0:
            if name or header_size or payload_size:
                raise ArchiveError("it has an entry without a sequence")
            return messages, last
        elif not previous < sequence <= last:
            raise ArchiveError(f"message {sequence} is out of order")
        else:
            previous = sequence
            messages += 1
        reader.skip(header_size + payload_size)


def _entry(reader: _Counted) -> tuple[bytes, int, int, int]:
    """Read the name, the sequence and the two sizes of an entry."""
    head = reader.peek(_MAX_HEADER)
    position = 0
    numbers = []
    for _ in range(5):
        number, position = read_varint(head, position)
        numbers.append(number)
    name_size, _, sequence, header_size, payload_size = numbers
    if name_size > MAX_NAME or header_size + payload_size > MAX_MESSAGE:
        raise ArchiveError("an entry is too large")
    reader.skip(position)
    name = reader.read(name_size)
    if len(name) < name_size:
        raise ArchiveError("it is truncated")
    return name, sequence, header_size, payload_size


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ArchiveError("the description of the stream is invalid")
    return found


class _TarFile(io.RawIOBase):
    """File object for ``tarfile``, which only moves forward."""

    def __init__(self, reader: _Counted) -> None:
        super().__init__()
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        return self._reader.read(size)

    def tell(self) -> int:
        return self._reader.position

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence or offset < self._reader.position:
            raise ArchiveError("it is not in order")
        self._reader.skip(offset - self._reader.position)
        return offset


def _scan_tar(reader: _Counted, stream: str) -> None:
    """Check a tar file: a server extracts its files below a folder of its own."""
    found = False
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _TarFile(reader)), mode="r:", errorlevel=2) as tar:
            while (member := tar.next()) is not None:
                if not member.isreg() or _FILES.fullmatch(member.name) is None:
                    raise ArchiveError(f"it contains the file {_LINE_FEEDS.sub(' ', member.name)[:80]!r}")
                if member.name == "meta.inf":
                    found = _check_description(tar.extractfile(member), stream)
    except tarfile.TarError as error:
        raise ArchiveError(f"it is no tar file: {error}") from None
    except (ValueError, OverflowError, EOFError, OSError) as error:
        raise ArchiveError(f"it is malformed: {error}") from None
    if not found:
        raise ArchiveError("it has no description of the stream")


def _check_description(file: IO[bytes] | None, stream: str) -> bool:
    assert file is not None  # it is a regular file
    name = _object(file.read(_MAX_FILE)).get("name")
    if name != stream:
        raise ArchiveError(f"it is of stream {str(name)[:80]!r}, not of {stream}")
    return True


__all__ = ["ArchiveError", "Contents", "scan"]
