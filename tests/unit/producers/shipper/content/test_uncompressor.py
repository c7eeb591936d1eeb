"""Reading of compressed files beside the event loop."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tickertape.producers.shipper.content import compression, uncompressor
from tickertape.producers.shipper.content.comparison import Comparison, Evidence
from tickertape.producers.shipper.content.compression import UnreadableContent, is_readable
from tickertape.producers.shipper.content.uncompressor import (
    IMMEDIATE_BYTES,
    Identity,
    Uncompressing,
    Uncompressor,
    identity_of,
)
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.position import HEAD_BYTES, PRECEDING_BYTES, digest

CONTENT = b"".join(b"line %d of a log that is compressed\n" % number for number in range(2_000))
LARGE = CONTENT * (1 + 2 * IMMEDIATE_BYTES // len(CONTENT))


def zip_of(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.log.1", data)
    return file.getvalue()


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    ".zip": zip_of,
    ".zst": lambda data: subprocess.run(["zstd"], input=data, capture_output=True, check=True).stdout,
}


@pytest.fixture
def reader() -> Iterator[Uncompressor]:
    reader = Uncompressor()
    yield reader
    reader.close()


class Compressed:
    """Compressed file with its arguments for the reader."""

    def __init__(self, folder: Path, data: bytes, extension: str = ".gz") -> None:
        if not is_readable(f"a{extension}"):
            pytest.skip(f"no library for {extension}")
        self.path = folder / f"app.log.1{extension}"
        self.path.write_bytes(COMPRESSORS[extension](data))

    @property
    def arguments(self) -> tuple[str, Identity, Callable[[], int]]:
        path = self.path
        return str(path), identity_of(path.stat()), lambda: os.open(path, os.O_RDONLY)


def evidence_of(data: bytes) -> Evidence:
    head = data[:HEAD_BYTES]
    return Evidence(digest(head), len(head), digest(data[-PRECEDING_BYTES:]), len(data))


def until_known(reader: Uncompressor, ask: Callable[[], Comparison | int]) -> Comparison | int:
    while True:
        try:
            return ask()
        except Uncompressing:
            reader.wait()


@pytest.mark.parametrize("extension", COMPRESSORS)
@pytest.mark.parametrize("data", [b"", b"one\n", CONTENT, LARGE], ids=["empty", "short", "small", "large"])
def test_a_content_is_read_and_recognized(
    tmp_path: Path, reader: Uncompressor, extension: str, data: bytes
) -> None:
    """A part of the content is recognized by its head and what is before an offset, and by nothing else."""
    file = Compressed(tmp_path, data, extension)
    part = data[: len(data) * 2 // 3]
    others = [evidence_of(data + b"more\n"), evidence_of(part + b"!")]
    ask = lambda: reader.compare(*file.arguments, [*others, evidence_of(part)], "test")  # noqa: E731
    assert until_known(reader, ask) == Comparison(evidence_of(part), len(data))
    fd = until_known(reader, lambda: reader.content(*file.arguments, "test"))
    assert isinstance(fd, int)
    with open(fd, "rb") as content:
        content.seek(0)
        assert content.read() == data
        assert os.fstat(fd).st_mtime_ns == file.path.stat().st_mtime_ns
        assert os.fstat(fd).st_nlink == 0


def test_another_head_ends_a_comparison(tmp_path: Path, reader: Uncompressor) -> None:
    """A large file with another beginning is not uncompressed."""
    file = Compressed(tmp_path, LARGE)
    comparison = reader.compare(*file.arguments, [evidence_of(b"other" * 500)], "test")
    assert comparison.matched is None
    assert comparison.size < IMMEDIATE_BYTES


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold threads back until the event is set."""
    event, read = threading.Event(), compression.ContentReader.read

    def wait(self: compression.ContentReader, size: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            event.wait()
        return read(self, size)

    monkeypatch.setattr(compression.ContentReader, "read", wait)
    yield event
    event.set()


def test_a_large_file_does_not_block(tmp_path: Path, reader: Uncompressor, held: threading.Event) -> None:
    """The caller returns while a thread still reads."""
    file = Compressed(tmp_path, LARGE)
    for _ in range(3):
        with pytest.raises(Uncompressing):
            reader.compare(*file.arguments, [evidence_of(LARGE)], "test")
        reader.begin_scan()
    held.set()
    reader.wait()
    assert reader.compare(*file.arguments, [evidence_of(LARGE)], "test").matched == evidence_of(LARGE)


def test_many_small_files_do_not_block_a_scan(
    tmp_path: Path, reader: Uncompressor, held: threading.Event
) -> None:
    """What exceeds the budget of a scan is left to the thread."""
    data, waiting = os.urandom(IMMEDIATE_BYTES // 2), 0
    for number in range(16):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            reader.compare(*Compressed(folder, data).arguments, [evidence_of(data)], "test")
        except Uncompressing:
            waiting += 1
    assert 8 <= waiting <= 9


def test_closing_does_not_wait(tmp_path: Path) -> None:
    """A shipper that ends does not wait until a large file is uncompressed."""
    reader, file = Uncompressor(), Compressed(tmp_path, bytes(200 << 20))
    before = threading.active_count()
    with pytest.raises(Uncompressing):
        reader.content(*file.arguments, "test")
    reader.close()
    deadline = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("data", [CONTENT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("extension", COMPRESSORS)
def test_a_damaged_file_is_no_other_error(
    tmp_path: Path, reader: Uncompressor, extension: str, data: bytes
) -> None:
    """Whatever a library raises, the caller sees one error."""
    file = Compressed(tmp_path, data, extension)
    file.path.write_bytes(file.path.read_bytes()[:-10])
    with pytest.raises(UnreadableContent, match="damaged or incomplete"):
        until_known(reader, lambda: reader.content(*file.arguments, "test"))


def test_a_bomb_is_not_uncompressed(
    tmp_path: Path, reader: Uncompressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grows without limit does not fill the disk."""
    monkeypatch.setattr(uncompressor, "MAX_UNCOMPRESSED", 3 * IMMEDIATE_BYTES)
    file = Compressed(tmp_path, bytes(10 * IMMEDIATE_BYTES))
    with pytest.raises(UnreadableContent, match="more than"):
        until_known(reader, lambda: reader.content(*file.arguments, "test"))


def test_an_archive_of_several_files_is_not_read(tmp_path: Path, reader: Uncompressor) -> None:
    """Which of them is the log is not known."""
    file = Compressed(tmp_path, b"", ".zip")
    with zipfile.ZipFile(file.path, "w") as archive:
        for name in "ab":
            archive.writestr(name, "line\n")
    with pytest.raises(UnreadableContent, match="the archive has 2 files"):
        reader.content(*file.arguments, "test")


def test_a_full_disk_is_an_error_that_may_pass(
    tmp_path: Path, reader: Uncompressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about the file."""
    full = lambda **_: open("/dev/full", "wb", 0)  # noqa: E731, SIM115 - closed by the reader
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match=r"No space left on device \(folder of temporary files"):
        reader.content(*Compressed(tmp_path, CONTENT).arguments, "test")


def test_no_folder_for_temporary_files_is_an_error_that_may_pass(
    tmp_path: Path, reader: Uncompressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not look like a compressed file that is gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="which TMPDIR sets") as failed:
        reader.content(*Compressed(tmp_path, CONTENT).arguments, "test")
    assert may_pass(failed.value)
