"""The spool of standard input: what is read from the pipe is on disk, whatever ends the process."""

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import orjson
import pytest
from tickertape.producers.shipper import spool as spool_module
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts
from tickertape.producers.shipper.spool import Spool
from tickertape.producers.shipper.standard_input import InputReader
from tickertape.producers.shipper.throttle import Throttle, ThrottleSettings
from tickertape.producers.shipper.timing import Timing

from tests.support.patience import PATIENCE
from tests.support.shipper_desk import PLAIN


def open_spool(folder: Path, limit: int, warnings: list[str]) -> Spool:
    counts = ParserCounts()
    stream = FileStream(
        "stdin", None, lambda: Parser(PLAIN, "stdin", counts), Throttle(ThrottleSettings(), "stdin", "stdin"),
        "run", roots=Roots([f"{folder}/*"]), timing=Timing(0.0),
    )  # fmt: skip
    return Spool(folder, stream, limit, warnings.append)


def spooled(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.spool")))


def fill(spool: Spool, fd: int, seconds: float) -> None:
    """Fill a spool for a while, as by a process that is then stopped."""

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await spool.fill(reader)

    reader = InputReader(fd)
    asyncio.run(main())
    reader.close()


@pytest.mark.parametrize("reason", ["spool", "disk"])
def test_what_does_not_fit_stays_in_the_pipe(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shipper that is stopped while its spool or disk is full has taken nothing from the pipe in vain."""
    read, write = os.pipe()
    data = b"".join(b"line %d\n" % number for number in range(6000))
    os.set_blocking(write, False)
    data = data[: os.write(write, data)]
    warnings: list[str] = []
    monkeypatch.setattr("tickertape.producers.shipper.standard_input.CHUNK_BYTES", 4096)
    if reason == "disk":
        capacity = 20_000

        def allocate(fd: int, size: int) -> None:
            if size > capacity:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(spool_module, "_allocate", allocate)
        monkeypatch.setattr(spool_module, "CHUNK_BYTES", 4096)
    spool = open_spool(tmp_path / "spool", 10_000 if reason == "spool" else 1 << 20, warnings)
    fill(spool, read, 0.3)
    os.set_blocking(read, False)
    rest = b""
    while block := _read(read):
        rest += block
    assert rest
    assert spooled(tmp_path / "spool") + rest == data
    assert len(warnings) == (reason == "disk")
    os.close(read)
    os.close(write)
    spool.close()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_segments_end_after_a_line(tmp_path: Path) -> None:
    """All input is in the segments, none of which has reserved space left."""
    read, write = os.pipe()
    data = b"".join(b"line %d\n" % number for number in range(4000))
    spool = open_spool(tmp_path / "spool", 1 << 20, [])
    spool._segment_bytes = 1000

    async def main() -> None:
        reader = InputReader(read)
        writing = asyncio.create_task(asyncio.to_thread(_write, write, data))
        async with asyncio.timeout(PATIENCE):
            await spool.fill(reader)
        await writing
        reader.close()

    asyncio.run(main())
    segments = [path.read_bytes() for path in sorted((tmp_path / "spool").glob("*.spool"))]
    assert b"".join(segments) == data
    assert all(segment.endswith(b"\n") for segment in segments if segment)
    assert not list((tmp_path / "spool").glob("*.next"))
    os.close(read)
    spool.close()


def _write(fd: int, data: bytes) -> None:
    for start in range(0, len(data), 777):
        os.write(fd, data[start : start + 777])
    os.close(fd)


def test_a_segment_that_a_killed_process_left_is_shipped(tmp_path: Path) -> None:
    """It was killed before it gave the segment its name."""
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "00000002.spool.next").write_bytes(b"line\n" + b"\0" * 100)
    spool = open_spool(folder, 1 << 20, [])
    assert [path.name for path in folder.iterdir()] == ["00000002.spool"]
    assert spool._number == 2
    spool.close()


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "gb18030"])
@pytest.mark.parametrize("size", [1000, 1001])
def test_segments_are_read_in_the_encoding_of_the_input(codec: str, size: int, tmp_path: Path) -> None:
    """A byte order mark is only at the beginning of the input; a segment begins with a whole character."""
    texts = [f"number {number} 中文日志 开 上" for number in range(3000)]
    data = ("\ufeff" if "16" in codec else "").encode(codec) + "".join(f"{text}\n" for text in texts).encode(
        codec
    )
    spool = open_spool(tmp_path / "spool", 1 << 20, [])
    spool._segment_bytes = 5000
    stream = spool.streams["stdin"]

    class Chunks:
        start = 0

        async def wait(self) -> None:
            pass

        def read(self) -> bytes:
            chunk = data[self.start : self.start + size]
            self.start += size
            return chunk

        def confirm(self) -> None:
            pass

    asyncio.run(spool.fill(Chunks()))
    assert len(list((tmp_path / "spool").glob("*.spool"))) > 5
    messages = []
    now = 1_800_000_000.0
    for _ in range(100):
        spool.scan(now)
        while batch := stream.next_batch(now, finish=True):
            messages += [orjson.loads(event.payload)["message"] for event in batch.events]
            stream.mark_shipped(batch, 1)
        now += 1.0
        if len(messages) >= len(texts):
            break
    assert messages == texts
    spool.close()
