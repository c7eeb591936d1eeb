"""Standard streams whose reader is gone or does not read."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tickertape.process import shutdown, standard_streams
from tickertape.process.standard_streams import LogFile, OutputError, ReaderGone, ResultFile

LINE = b"x" * 99 + b"\n"
PIPE = 4096 * 4


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a small pipe: the end to read from, and the end to write to."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE)
    yield ends
    for number in ends:
        with contextlib.suppress(OSError):
            os.close(number)


def drain(number: int) -> bytes:
    """Read what a pipe contains."""
    os.set_blocking(number, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(number, 65536):
            data += more
    return data


def test_a_log_without_a_reader_is_no_error(pipe: tuple[int, int]) -> None:
    """Whatever is written is taken, and lost."""
    os.close(pipe[0])
    log = LogFile(pipe[1])
    assert [log.write(LINE) for _ in range(3)] == [len(LINE)] * 3


@pytest.mark.parametrize("blocking", [True, False])
def test_a_log_does_not_wait_for_a_reader_that_stalls(pipe: tuple[int, int], blocking: bool) -> None:
    """Lines that do not fit are dropped and counted; once the reader reads, it learns how many."""
    os.set_blocking(pipe[1], blocking)
    log = LogFile(pipe[1])
    written = 1000
    for _ in range(written):
        assert log.write(LINE) == len(LINE)
    dropped = log.dropped
    assert 0 < dropped <= written
    kept = drain(pipe[0])
    log.write(LINE)
    assert kept.count(LINE) + dropped == written
    assert log.dropped == 0
    rest = drain(pipe[0])
    assert f"{dropped} writes were dropped".encode() in rest
    assert rest.endswith(b"\n" + LINE)


def test_a_result_without_a_reader_raises_once(pipe: tuple[int, int]) -> None:
    """The error is raised for the first write only, so that exiting raises nothing."""
    os.close(pipe[0])
    result = ResultFile(pipe[1])
    with pytest.raises(ReaderGone, match="standard output cannot be written: Broken pipe"):
        result.write(LINE)
    assert result.write(LINE) == len(LINE)


def test_a_full_disk_is_an_error() -> None:
    """A result that does not fit is an error that an operator can fix."""
    with (
        open("/dev/full", "wb") as full,
        pytest.raises(OutputError, match="No space left on device; free space"),
    ):
        ResultFile(full.fileno()).write(LINE)


def test_a_stop_signal_ends_the_wait_for_a_reader(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result waits for a slow reader until the command is told to end."""
    result = ResultFile(pipe[1])
    result.write(LINE * (PIPE // len(LINE)))
    monkeypatch.setattr(shutdown, "received", [])
    previous = signal.signal(signal.SIGALRM, lambda *_: shutdown.received.append(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    try:
        with pytest.raises(ReaderGone):
            result.write(LINE * 1000)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - began >= 0.3


def test_a_log_that_takes_nothing_although_it_is_writable_is_dropped(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that shares the log may fill it again and again."""
    monkeypatch.setattr(LogFile, "_write_piece", lambda *_: 0)
    monkeypatch.setattr(standard_streams, "STALL_SECONDS", 0.0)
    log = LogFile(pipe[1])
    assert log.write(LINE) == len(LINE)
    assert log.dropped == 1
