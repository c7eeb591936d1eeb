"""Fixtures of version 0.1.0, made by ``make_0_1_0`` with that version's programs."""

import fcntl
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT

FIXTURE: Final = ROOT / "tests" / "integration" / "compatibility" / "0.1.0"
DESK: Final = Path("/tmp/tickertape-0.1.0")
"""Folder of the shipper's logs and state; checkpoints contain the paths in it."""

HOST: Final = "desk"
"""Name of the shipper's host."""


def data_directory(folder: Path) -> Path:
    """Unpack the data directory of a relay with its own NATS server; return its path."""
    with tarfile.open(FIXTURE / "data.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "data"


def server_folder(folder: Path) -> Path:
    """Unpack the streams as the data of a ``NatsServer``; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unpacked:
        shutil.move(data_directory(Path(unpacked)) / "jetstream", folder / "data")
    return folder


@contextmanager
def shipper_desk() -> Iterator[Path]:
    """Unpack the shipper's logs and state to the folder that its checkpoints name; one test at a time."""
    with Path(f"{DESK}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(DESK, ignore_errors=True)
        with tarfile.open(FIXTURE / "desk.tar.gz") as archive:
            archive.extractall(DESK.parent, members=_renamed(archive), filter="data")
        rotated, live = DESK / "logs" / "app.log.1", DESK / "logs" / "app.log"
        os.utime(live)
        os.utime(rotated, (live.stat().st_mtime - 60,) * 2)
        try:
            yield DESK
        finally:
            shutil.rmtree(DESK, ignore_errors=True)


def _renamed(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        member.name = member.name.replace("desk", DESK.name, 1)
        yield member


def on_this_disk(checkpoint: bytes) -> bytes:
    """Return a checkpoint of 0.1.0 as it would be if its files had always been on this disk.

    Only device and inode of each file are replaced, by those of the file that was unpacked in its place.
    """
    body = json.loads(checkpoint)
    rotated, live = body["files"]
    for file, name in ((rotated, "app.log.1"), (live, "app.log")):
        found = (DESK / "logs" / name).stat()
        file["device"], file["inode"] = found.st_dev, found.st_ino
    return json.dumps(body, separators=(",", ":")).encode()


def options() -> dict[str, list[str]]:
    """Return the options of each command."""
    found: dict[str, list[str]] = json.loads((FIXTURE / "options.json").read_text())
    # ``--for-`` was an alias that nothing mentioned.
    return {
        name.removeprefix("tickertape "): [option for option in names if option != "--for-"]
        for name, names in found.items()
    }


def conversation() -> dict[str, Any]:
    """Return what clients of 0.1.0 sent and received."""
    found: dict[str, Any] = json.loads((FIXTURE / "conversation.json").read_text())
    return found
