"""Local state of a shipper: a lock, and the checkpoints for servers without atomic batches.

Invariants:

1. Only one process at a time ships the files of a state.
2. The file on disk is always complete: it is written under another name, synced and renamed, and then the
   folder is synced.
3. A damaged file is never treated as an empty one, which would silently ship everything again.
"""

import base64
import hashlib
import os
from pathlib import Path

import orjson
from tickertape.producers.shipper.sinks.sink import VERSION, Checkpoint, decode

from tickertape.errors import OperatorError
from tickertape.process.lockfile import acquire_lock


class CheckpointError(OperatorError):
    """Local state that cannot be used."""


class LocalState:
    """State of one shipper in a folder, locked until ``close``.

    Args:
        folder: folder for all shippers of this host.
        key: identifies what is shipped, so that several shippers can share a folder.

    Raises:
        CheckpointError: the folder is not writable, or another process holds the lock.
    """

    def __init__(self, folder: Path, key: str) -> None:
        name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        self.name = name
        self.folder = folder
        self.path = folder / f"ship-{name}.json"
        self._saved: bytes | None = None
        try:
            self._lock = acquire_lock(self.path.with_suffix(".lock"))
        except BlockingIOError:
            message = f"{self.path}: another shipper ships the same files with this state"
            raise CheckpointError(message, "stop it, or choose another --state-dir") from None
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Release the lock."""
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
            return {checkpoint.path: checkpoint for checkpoint in checkpoints}
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
        if data == self._saved:
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
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unwritable(error) from None
        self._saved = data
        return True

    def _unwritable(self, error: OSError) -> CheckpointError:
        message = f"{self.path}: cannot be written: {error.strerror}"
        return CheckpointError(message, "choose a writable folder with --state-dir")


def _read(path: Path) -> bytes:
    # Neither a link nor a pipe, which would block, was made by this program.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read()
