"""Reading of compressed files: a small one immediately, a large one in a thread.

Invariants:

1. The event loop is blocked only while ``IMMEDIATE_BYTES`` are uncompressed, and ``BUDGET`` of them per scan.
2. Comparing needs no space; only what is to be read is uncompressed to a temporary file without a name.
3. One file at a time is uncompressed in the thread, and closing ends that within a block.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Final, NamedTuple, Protocol

from tickertape.producers.shipper.content.comparison import Comparer, Comparison, Evidence
from tickertape.producers.shipper.content.compression import ContentReader, UnreadableContent

from tickertape.errors import TickertapeError

MAX_UNCOMPRESSED: Final = 1 << 30
"""Bytes of a compressed file that are uncompressed; more could fill the disk of temporary files."""

IMMEDIATE_BYTES: Final = 1 << 20
"""Uncompressed bytes of a file that are read without a thread; they take 3 to 50 ms."""

BUDGET: Final = 4 * IMMEDIATE_BYTES
"""Uncompressed bytes of all files that are read without a thread in one scan."""

_BLOCK: Final = 1 << 18
_MAX_IDLE_SCANS: Final = 60
"""Scans after which a result is discarded that nothing has asked for."""


class Uncompressing(TickertapeError):
    """Result that is not known yet, as a large file is being uncompressed; ask again after the next scan."""


class Identity(NamedTuple):
    """Identity of a compressed file and its content.

    Attributes:
        device: number of its device.
        inode: its inode.
        size: its size in bytes.
        modified_ns: its modification time in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified_ns: int


def identity_of(status: os.stat_result) -> Identity:
    """Return the identity of a file and its content."""
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class _Sink(Protocol):
    """Receiver of uncompressed blocks."""

    @property
    def is_decided(self) -> bool:
        """Whether no further block can change the result."""

    def write(self, block: bytes, position: int) -> None:
        """Take a block that begins at a position."""

    def result(self, size: int) -> "Comparison | int":
        """Return the result for a content of ``size`` bytes; a descriptor belongs to the caller."""

    def close(self) -> None:
        """Release what is not used."""


class _Writer:
    """Temporary file without a name."""

    is_decided = False

    def __init__(self, modified_ns: int) -> None:
        self._modified_ns = modified_ns
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see ``close``
        except OSError as error:
            raise _temporary_error(error) from None

    def write(self, block: bytes, position: int) -> None:
        """Write a block."""
        view = memoryview(block)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _temporary_error(error) from None

    def result(self, size: int) -> int:
        """Return a descriptor of the file, which has the time of the compressed one."""
        os.utime(self._file.fileno(), ns=(self._modified_ns, self._modified_ns))
        return os.dup(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _temporary_error(error: OSError) -> OSError:
    """Return an error that says where there is no space; it may pass, and says nothing about a log."""
    number = errno.EROFS if error.errno in (None, errno.ENOENT, errno.EACCES) else error.errno
    return OSError(number, f"{error.strerror} (folder of temporary files, which TMPDIR sets)")


class _Job:
    """Work on one compressed file, which can be continued in a thread.

    Args:
        path: its path, for its extension.
        fd: its descriptor, which the job closes.
        sink: receives the content.

    Raises:
        UnreadableContent: the content cannot be read.
    """

    def __init__(self, path: str, fd: int, sink: _Sink) -> None:
        self.idle_scans = 0
        self.future: Future[Comparison | int | None] | None = None
        self._file = os.fdopen(fd, "rb")
        self._sink = sink
        self._size = 0
        self._cancelled = False
        try:
            self._reader = ContentReader(path, self._file)
        except BaseException:
            self.close()
            raise

    def run(self, limit: int | None = None) -> Comparison | int | None:
        """Continue until the size reaches a limit; return the result, or None if there is more to do.

        Raises:
            UnreadableContent: the content cannot be read.
            OSError: the file cannot be read, or the temporary file not be written, at the moment.
        """
        try:
            while (limit is None or self._size < limit) and not self._cancelled:
                block = self._reader.read(_BLOCK)
                if self._size + len(block) > MAX_UNCOMPRESSED:
                    raise UnreadableContent(f"it has more than {MAX_UNCOMPRESSED} bytes uncompressed")
                if block:
                    self._sink.write(block, self._size)
                    self._size += len(block)
                if not block or self._sink.is_decided:
                    result = self._sink.result(self._size)
                    self.close()
                    return result
        except BaseException:
            self.close()
            raise
        return None

    @property
    def size(self) -> int:
        """Number of bytes that are uncompressed."""
        return self._size

    def cancel(self) -> None:
        """End the work and discard its result."""
        self._cancelled = True
        if self.future is None or self.future.cancel():
            self.close()
        else:
            self.future.add_done_callback(self._discard)

    def _discard(self, future: Future[Comparison | int | None]) -> None:
        if future.exception() is None and isinstance(result := future.result(), int):
            os.close(result)
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._sink.close()


class Uncompressor:
    """Reader of the compressed files of a shipper."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[Identity, str], _Job] = {}
        self._budget = BUDGET
        self._executor: ThreadPoolExecutor | None = None

    def begin_scan(self) -> None:
        """Start a scan: discard results that nothing has asked for, and allow immediate work again."""
        self._budget = BUDGET
        for key, job in list(self._jobs.items()):
            job.idle_scans += 1
            if job.idle_scans > _MAX_IDLE_SCANS:
                del self._jobs[key]
                job.cancel()

    def compare(
        self,
        path: str,
        identity: Identity,
        open_file: Callable[[], int],
        evidence: Sequence[Evidence],
        purpose: str,
    ) -> Comparison:
        """Compare the content of a file with evidence.

        Args:
            path: its path.
            identity: its identity and that of its content.
            open_file: opens it.
            evidence: what is to be recognized.
            purpose: who asks, and for what; the result is that for the evidence of the first call.

        Raises:
            Uncompressing: the result is not known yet.
            UnreadableContent: the content cannot be read.
            OSError: the file cannot be read at the moment.
        """
        result = self._result((identity, purpose), path, open_file, lambda: Comparer(evidence))
        assert isinstance(result, Comparison)
        return result

    def content(self, path: str, identity: Identity, open_file: Callable[[], int], purpose: str) -> int:
        """Return the descriptor of an unnamed file with the content of a file; see ``compare``."""
        key = (identity, f"content {purpose}")
        result = self._result(key, path, open_file, lambda: _Writer(identity.modified_ns))
        assert isinstance(result, int)
        return result

    def _result(
        self,
        key: tuple[Identity, str],
        path: str,
        open_file: Callable[[], int],
        make_sink: Callable[[], _Sink],
    ) -> Comparison | int:
        job = self._jobs.get(key)
        if job is None:
            sink = make_sink()
            try:
                fd = open_file()
            except BaseException:
                sink.close()
                raise
            job = _Job(path, fd, sink)
            limit = min(IMMEDIATE_BYTES, self._budget)
            result = job.run(limit)
            self._budget -= min(limit, job.size)
            if result is not None:
                return result
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "uncompress")
            job.future = self._executor.submit(job.run)
            self._jobs[key] = job
        assert job.future is not None
        if not job.future.done():
            job.idle_scans = 0
            raise Uncompressing(f"{path} is being uncompressed")
        del self._jobs[key]
        result = job.future.result()
        assert result is not None
        return result

    def wait(self) -> None:
        """Wait until all work is done."""
        for job in self._jobs.values():
            if job.future is not None:
                job.future.exception()

    def close(self) -> None:
        """Cancel all work."""
        for job in self._jobs.values():
            job.cancel()
        self._jobs.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
