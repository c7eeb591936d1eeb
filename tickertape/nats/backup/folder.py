"""Folder of a backup: one archive per stream, and the manifest, which is written last.

Invariants:

1. A folder with a manifest is a complete backup, and is never written to.
2. No link is followed, and no file is opened that is not a regular one.
3. Nothing is removed except files of an incomplete backup.
"""

import errno
import fcntl
import hashlib
import io
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from tickertape.nats.backup.manifest import MAX_BYTES, STREAMS, BackupError, Manifest

MANIFEST: Final = "manifest.json"
_PARTIAL: Final = ".partial"
_READ_AHEAD: Final = 1024 * 1024


def archive_name(stream: str) -> str:
    """Return the file name of a stream's archive."""
    return f"{stream}.snapshot"


_OWN: Final = frozenset(
    {f"{MANIFEST}{_PARTIAL}"}
    | {archive_name(stream) for stream in STREAMS}
    | {f"{archive_name(stream)}{_PARTIAL}" for stream in STREAMS}
)
"""Files that an incomplete backup can consist of."""


class BackupFolder:
    """Folder of a backup, open and locked.

    Args:
        path: the folder.
        descriptor: the open folder.
        created: whether this object has created the folder.
    """

    def __init__(self, path: Path, descriptor: int, *, created: bool = False) -> None:
        self.path = path
        self._descriptor = descriptor
        self._created = created

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open a folder for a new backup: one that is missing, empty, or has an incomplete backup.

        Raises:
            BackupError: the folder has other files, or is in use.
            OSError: the folder cannot be created.
        """
        created = not path.exists()
        if created:
            path.mkdir(mode=0o700)
            _sync_folder(path.parent)
        folder = cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), created=created)
        try:
            folder._lock(fcntl.LOCK_EX)
            names = os.listdir(folder._descriptor)
            if MANIFEST in names:
                raise BackupError(f"{path} has a complete backup already", "choose another folder")
            if others := sorted(set(names) - _OWN):
                raise BackupError(f"{path} is not empty: it has {others[0]}", "choose another folder")
            folder._remove(names)
        except BaseException:
            folder._close()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a complete backup.

        Raises:
            BackupError: the folder has no complete backup, or is in use.
            OSError: the folder cannot be read.
        """
        folder = cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            folder._lock(fcntl.LOCK_SH)
            names = os.listdir(folder._descriptor)
            if MANIFEST not in names:
                problem = "the backup is incomplete" if set(names) & _OWN else "there is no backup"
                raise BackupError(f"{problem}: {path} has no {MANIFEST}", "choose another folder")
        except BaseException:
            folder._close()
            raise
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read_manifest(self) -> Manifest:
        """Read the manifest.

        Raises:
            BackupError: it is invalid.
            OSError: it cannot be read.
        """
        with open(self._open(MANIFEST), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        try:
            if len(data) > MAX_BYTES:
                raise ValueError("is too large")
            return Manifest.decode(data)
        except ValueError as error:
            raise BackupError(f"{self.path / MANIFEST} {error}", "use another backup") from None

    def open_archive(self, stream: str) -> "HashedFile":
        """Open an archive for reading.

        Raises:
            OSError: it is missing, is no regular file, or cannot be read.
        """
        return HashedFile(self._open(archive_name(stream)))

    def create_archive(self, stream: str) -> "NewFile":
        """Create an archive, which counts as incomplete until it is finished.

        Raises:
            OSError: it cannot be created.
        """
        return NewFile(self._descriptor, archive_name(stream))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, which makes the backup complete.

        Raises:
            OSError: it cannot be written.
        """
        file = NewFile(self._descriptor, MANIFEST)
        try:
            file.write(manifest.encode())
            file.finish()
        finally:
            file.close()

    def discard(self) -> None:
        """Remove an incomplete backup, and the folder if this object has created it."""
        names = os.listdir(self._descriptor)
        if MANIFEST not in names:
            self._remove(names)
            if self._created:
                self.path.rmdir()

    def _remove(self, names: list[str]) -> None:
        for name in sorted(set(names) & _OWN):
            os.unlink(name, dir_fd=self._descriptor)

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        path = str(self.path / name)
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except OSError as error:
            reason = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise OSError(error.errno, reason, path) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "is not a regular file", path)
        return descriptor

    def _lock(self, mode: int) -> None:
        try:
            fcntl.flock(self._descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(
                f"another command uses {self.path}", "wait for it, or choose another folder"
            ) from None

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class NewFile:
    """File that is being written, under another name until it is complete.

    Args:
        folder: descriptor of the folder.
        name: name of the complete file.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, folder: int, name: str) -> None:
        self.size = 0
        self._folder = folder
        self._name = name
        self._digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = open(os.open(f"{name}{_PARTIAL}", flags, 0o600, dir_fd=folder), "wb", buffering=0)  # noqa: SIM115

    @property
    def sha256(self) -> str:
        """Digest of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append data.

        Raises:
            OSError: it cannot be written.
        """
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._digest.update(data)
        self.size += len(data)

    def finish(self) -> None:
        """Write the file to the disk, and give it its name.

        Raises:
            OSError: the file cannot be synced or renamed.
        """
        os.fsync(self._file.fileno())
        os.rename(f"{self._name}{_PARTIAL}", self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class HashedFile:
    """File that computes the digest of what is read.

    Args:
        descriptor: the file, open for reading; closed with this object.

    Attributes:
        size: bytes of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self.size = os.fstat(descriptor).st_size
        self._digest = hashlib.sha256()
        self._raw = _Raw(descriptor, self._digest)
        self._file: IO[bytes] = io.BufferedReader(cast("Any", self._raw), _READ_AHEAD)

    @property
    def sha256(self) -> str:
        """Digest of the file, once it has been read to its end."""
        return self._digest.hexdigest()

    @property
    def position(self) -> int:
        """Bytes read so far; up to a MiB more than were returned."""
        return self._raw.count

    def read(self, count: int) -> bytes:
        """Read a number of bytes; fewer at the end."""
        return self._file.read(count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Raw(io.RawIOBase):
    """Unbuffered file that passes what is read to a digest."""

    def __init__(self, descriptor: int, digest: "hashlib._Hash") -> None:
        super().__init__()
        self.count = 0
        self._descriptor = descriptor
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = os.readv(self._descriptor, [buffer])
        self._digest.update(memoryview(buffer)[:count])
        self.count += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["MANIFEST", "BackupFolder", "HashedFile", "NewFile", "archive_name"]
