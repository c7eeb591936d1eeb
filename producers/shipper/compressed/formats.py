"""Formats of compressed files: their extensions, and how their content is read."""

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any, Final

from tickertape.errors import TickertapeError

zstandard: Any = None
"""Library for ``.zst``; None if it is not installed."""
with contextlib.suppress(ImportError):
    zstandard = importlib.import_module("zstandard")

COMPRESSED: Final = (
    ".gz", ".bz2", ".xz", ".lzma", ".zip", ".zst", ".lz4", ".lzo", ".br", ".Z", ".7z",
)  # fmt: skip
"""Extensions of compressed files, which are not read as text."""


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


def _open_zst(file: IO[bytes]) -> IO[bytes]:
    if zstandard is None:
        raise UnreadableContent(
            "reading .zst needs the library zstandard; install tickertape[zstd], or compress with gzip"
        )
    stream: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return stream


_OPENERS: Final[dict[str, Callable[[IO[bytes]], IO[bytes] | io.BufferedIOBase]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lzma": lzma.LZMAFile,
    ".zip": _open_zip,
    ".zst": _open_zst,
}

_ERRORS: Final[tuple[type[Exception], ...]] = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError,
    ValueError, *((zstandard.ZstdError,) if zstandard is not None else ()),
)  # fmt: skip
"""Errors that say that a file is damaged, incomplete, encrypted, or of another format than its name."""


def is_readable(path: str) -> bool:
    """Return whether compressed files with the extension of a path can be read by this installation."""
    extension = os.path.splitext(path)[1]
    return extension in _OPENERS and (extension != ".zst" or zstandard is not None)


class ContentReader:
    """Reader of what a compressed file contains.

    Args:
        path: its path, for its extension.
        file: the open file, which the caller closes.

    Raises:
        UnreadableContent: no such file can be read.
    """

    def __init__(self, path: str, file: IO[bytes]) -> None:
        extension = os.path.splitext(path)[1]
        opener = _OPENERS.get(extension)
        if opener is None:
            raise UnreadableContent(f"{extension} is not supported; compress with gzip, bzip2, xz or zstd")
        self._source: Any = self._guarded(opener, file)

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; nothing at the end.

        Raises:
            UnreadableContent: the file is damaged or incomplete.
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
            raise UnreadableContent(f"it is damaged or incomplete: {error}") from None
