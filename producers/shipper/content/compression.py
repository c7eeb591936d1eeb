"""Formats of compressed files: their extensions, and how their content is read."""

import bz2
import contextlib
import gzip
import importlib
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any, Final, Protocol

from tickertape.errors import TickertapeError

zstandard: Any = None
"""Library for ``.zst``; None if it is not installed."""
with contextlib.suppress(ImportError):
    zstandard = importlib.import_module("zstandard")

COMPRESSED: Final = (
    ".gz", ".bz2", ".xz", ".lzma", ".zip", ".zst", ".lz4", ".lzo", ".br", ".Z", ".7z",
)  # fmt: skip
"""Extensions of compressed files, which are not read as text."""


_ZST_CHUNK: Final = 2048
"""Compressed bytes that are uncompressed in one go; they become at most 64 MiB."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most ``size``; nothing at the end."""


class UnreadableContent(TickertapeError):
    """Compressed file whose content cannot be read.

    Args:
        reason: why, as the end of a sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def _open_zip(file: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(file)
    names = [info for info in archive.infolist() if not info.is_dir()]
    if len(names) != 1:
        raise UnreadableContent(f"the archive has {len(names)} files")
    return archive.open(names[0])


class _ZstReader:
    """Reader of the frames of a file; unlike the library's, it notices that the last frame is incomplete."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame: Any = None
        self._data = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; nothing at the end."""
        while not self._data:
            chunk = self._file.read(_ZST_CHUNK)
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the last frame is incomplete")
                return b""
            while chunk:
                self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
                self._data += self._frame.decompress(chunk)
                chunk = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
        data, self._data = self._data[:size], self._data[size:]
        return data


_OPENERS: Final[dict[str, Callable[[IO[bytes]], _Readable]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lzma": lzma.LZMAFile,
    ".zip": _open_zip,
    ".zst": _ZstReader,
}

_ERRORS: Final[tuple[type[Exception], ...]] = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError,
    ValueError, *((zstandard.ZstdError,) if zstandard is not None else ()),
)  # fmt: skip
"""Errors that say that a file is damaged, incomplete, encrypted, or of another format than its name."""


def check_readable(path: str) -> None:
    """Check that this installation can read compressed files with the extension of a path.

    Raises:
        UnreadableContent: it cannot.
    """
    extension = os.path.splitext(path)[1]
    if extension not in _OPENERS:
        raise UnreadableContent(f"{extension} is not supported; compress with gzip, bzip2, xz or zstd")
    if extension == ".zst" and zstandard is None:
        raise UnreadableContent(
            "which needs the library zstandard; install tickertape[zstd], or compress with gzip"
        )


def is_readable(path: str) -> bool:
    """Return whether this installation can read compressed files with the extension of a path."""
    try:
        check_readable(path)
    except UnreadableContent:
        return False
    return True


class ContentReader:
    """Reader of what a compressed file contains.

    Args:
        path: its path, for its extension.
        file: the open file, which the caller closes.

    Raises:
        UnreadableContent: no such file can be read.
    """

    def __init__(self, path: str, file: IO[bytes]) -> None:
        check_readable(path)
        self._source: Any = self._guarded(_OPENERS[os.path.splitext(path)[1]], file)

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; nothing at the end.

        Raises:
            UnreadableContent: the file is damaged or incomplete.
            OSError: the file cannot be read.
        """
        data: bytes = self._guarded(self._source.read, size)
        return data

    @staticmethod
    def _guarded(call: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return call(argument)
        except UnreadableContent:
            raise
        except _ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file cannot be read, whatever it contains
            raise UnreadableContent(f"it is damaged or incomplete: {error}") from None
