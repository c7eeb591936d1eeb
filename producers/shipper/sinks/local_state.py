"""Local state of a shipper: a lock, and the checkpoints for servers without atomic batches.

Invariants:

1. Only one process at a time ships the files of a state.
2. The file on disk is always complete: it is written under another name, synced and renamed, and then the
   folder is synced.
3. A damaged file is never treated as an empty one, which would silently ship everything again.
4. A change of one checkpoint costs the same however many there are: it is appended to a journal, and the file
   is written again after many changes. The last record may be incomplete after a crash;
   it was not acknowledged then.
"""

import base64
import hashlib
import os
import zlib
from pathlib import Path
from typing import Final

import orjson
from tickertape.producers.shipper.sinks.sink import VERSION, Checkpoint, decode

from tickertape.errors import OperatorError
from tickertape.process.files import write_hint
from tickertape.process.lockfile import acquire_lock

MIN_JOURNAL_BYTES: Final = 1024 * 1024
"""Bytes of a journal, unless the checkpoints are larger, after which all checkpoints are written again."""


class CheckpointError(OperatorError):
    """Local state that cannot be used."""


def state_key(host: str, paths: list[str]) -> str:
    """Return what identifies the state of a shipper: its host name, and its absolute paths and globs."""
    # No path contains a null character, so different lists of paths have different keys.
    return "\0".join([host, *sorted(paths)])


def state_path(folder: Path, key: str) -> Path:
    """Return the file of the checkpoints in a folder for all shippers of a host."""
    name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return folder / f"ship-{name}.json"


def lock_path(path: Path) -> Path:
    """Return the lock file of a state."""
    return path.with_suffix(".lock")


class LocalState:
    """State of one shipper in a folder, locked until ``close``.

    Args:
        folder: folder for all shippers of this host.
        key: identifies what is shipped, so that several shippers can share a folder.

    Raises:
        CheckpointError: the folder is not writable, or another process holds the lock.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.path = state_path(folder, key)
        self.name = self.path.stem.removeprefix("ship-")
        self._saved: bytes | None = None
        self._journal: int | None = None
        self._journal_bytes = 0
        try:
            self._lock = acquire_lock(lock_path(self.path))
        except BlockingIOError:
            message = f"{self.path}: another shipper ships the same files with this state"
            raise CheckpointError(message, "stop it, or choose another --state-dir") from None
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Release the lock."""
        self._close_journal()
        self._lock.close()

    def load(self) -> dict[str, Checkpoint]:
        """Read the checkpoints, by path; return none if there is no file yet.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            body = orjson.loads(_read(self.path))
            if body["version"] != VERSION:
                raise ValueError(f"version {body['version']!r}")
            checkpoints = [decode(base64.b64decode(text)) for text in body["checkpoints"]]
            found = {checkpoint.path: checkpoint for checkpoint in checkpoints}
            for changed in self._read_journal():
                known = found.get(changed.path)
                # A crash may have left the journal of earlier checkpoints.
                if known is None or known.count < changed.count:
                    found[changed.path] = changed
            return found
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be read: {error.strerror}",
                "make it readable by the user of this program",
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            message = f"{self.path}: not a checkpoint file of this version ({error})"
            raise CheckpointError(message, "move it away to ship all files from their start") from None

    def save(self, checkpoints: dict[str, bytes]) -> bool:
        """Save encoded checkpoints durably; return False if they are unchanged.

        Raises:
            CheckpointError: the disk is full or the folder is not writable.
        """
        texts = [base64.b64encode(body).decode() for body in checkpoints.values()]
        data = orjson.dumps({"version": VERSION, "checkpoints": texts})
        # Two syncs cost milliseconds, so an unchanged state is not written.
        if data == self._saved and not self._journal_bytes:
            return False
        temporary = self.path.with_suffix(".tmp")
        try:
            temporary.unlink(missing_ok=True)
            # With O_EXCL, a link that was planted is not followed.
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from None
        self._saved = data
        self._journal_bytes = 0
        self._close_journal()
        return True

    def record(self, checkpoints: dict[str, bytes], path: str) -> None:
        """Save one encoded checkpoint that has changed durably.

        Args:
            checkpoints: all encoded checkpoints.
            path: path of the one that has changed.

        Raises:
            CheckpointError: the disk is full or the folder is not writable.
        """
        saved = len(self._saved or b"")
        if self._journal is None or self._journal_bytes > max(MIN_JOURNAL_BYTES, saved):
            self.save(checkpoints)
            self._create_journal()
            return
        text = base64.b64encode(checkpoints[path])
        record = b"%08x %b\n" % (zlib.crc32(text), text)
        try:
            written = os.write(self._journal, record)
            if written < len(record):
                os.write(self._journal, record[written:])  # raises the reason
            os.fdatasync(self._journal)
        except OSError as error:
            # A part of this record must not precede another one.
            self._close_journal()
            raise self._unwritable(error) from None
        self._journal_bytes += len(record)

    @property
    def journal_path(self) -> Path:
        """File of the checkpoints that have changed since all were written."""
        return self.path.with_suffix(".journal")

    def _create_journal(self) -> None:
        try:
            self.journal_path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(self.journal_path, flags, 0o600)
            self._journal_bytes = 0
            _sync_folder(self.path.parent)
        except OSError as error:
            self._close_journal()
            raise self._unwritable(error) from None

    def _close_journal(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _read_journal(self) -> list[Checkpoint]:
        """Read the records of the journal.

        Raises:
            ValueError: a record before the last one is damaged.
        """
        try:
            *records, _ = _read(self.journal_path).split(b"\n")  # the last one is empty or incomplete
        except FileNotFoundError:
            return []
        found = []
        for number, record in enumerate(records, 1):
            checksum, _, text = record.partition(b" ")
            if checksum == b"%08x" % zlib.crc32(text):
                found.append(decode(base64.b64decode(text)))
            elif number < len(records):
                raise ValueError(f"record {number} of its journal is damaged")
        return found

    def _unwritable(self, error: OSError) -> CheckpointError:
        message = f"{self.path}: cannot be written: {error.strerror}"
        return CheckpointError(message, write_hint(error, "choose a writable folder with --state-dir"))


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> bytes:
    # Neither a link nor a pipe, which would block, was made by this program.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read()
