"""The lock on a shipper's state on this host, and its checkpoints there for servers without atomic batches.

Invariants:

1. One process at a time ships what a state stands for.
2. The file on disk is always whole: written aside, synced, renamed, and the folder synced.
3. A damaged file is never taken for an empty one: that would ship everything again in silence.
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
    """The state on disk cannot be used."""


class LocalState:
    """The state of one shipper in a folder, locked until ``close``.

    Args:
        folder: of all shippers of this host.
        key: names what is shipped, so that several shippers can share a folder.

    Raises:
        CheckpointError: the folder cannot be written, or another process holds the lock.
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
            what = f"{self.path}: another shipper ships the same files with this state"
            raise CheckpointError(what, "stop it, or give this one another --state-dir") from None
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Let another process have the state."""
        self._lock.close()

    def load(self) -> dict[str, Checkpoint]:
        """Read the checkpoints, by path; none when there is no file yet.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            body = orjson.loads(self.path.read_bytes())
            if body["version"] != VERSION:
                raise ValueError(f"version {body['version']!r}")
            found = [decode(base64.b64decode(text)) for text in body["checkpoints"]]
            return {checkpoint.path: checkpoint for checkpoint in found}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be read: {error.strerror}", "let this program's user read it"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            what = f"{self.path}: is no checkpoint of this version ({error})"
            raise CheckpointError(what, "move it away to ship the files from their start") from None

    def save(self, checkpoints: dict[str, bytes]) -> bool:
        """Make encoded checkpoints last; False when the same are there already.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written.
        """
        texts = [base64.b64encode(body).decode() for body in checkpoints.values()]
        data = orjson.dumps({"version": VERSION, "checkpoints": texts})
        if data == self._saved:
            return False
        aside = self.path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
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
        what = f"{self.path}: cannot be written: {error.strerror}"
        return CheckpointError(what, "give a folder that can be written with --state-dir")
