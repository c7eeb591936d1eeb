"""Rotation by the program ``logrotate``, with every way in which it moves, copies and compresses files."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tickertape.producers.shipper.content.compression import is_readable

from tests.support.shipper_desk import Desk

LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate")

COMPRESSORS = {
    "gzip": ("gzip", "gunzip", ".gz"),
    "xz": ("xz", "unxz", ".xz"),
    "bzip2": ("bzip2", "bunzip2", ".bz2"),
    "zstd": ("zstd", "unzstd", ".zst"),
}


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("options", ["create", "copytruncate", "create delaycompress"])
@pytest.mark.parametrize("rotations", [1, 2])
@pytest.mark.parametrize("kills", [False, True])
def test_logrotate(tmp_path: Path, compressor: str, options: str, rotations: int, kills: bool) -> None:
    """Each line is shipped once and in order, however often the log rotates between two scans."""
    program, inverse, extension = COMPRESSORS[compressor]
    if shutil.which(program) is None or not is_readable(f"app.log.1{extension}"):
        pytest.skip(f"needs {program} and its library")
    configuration, state = tmp_path / "logrotate.conf", tmp_path / "state"
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    lines = [
        f"{logs}/app.log {{", *options.split(), "rotate 20", "size 1", "compress",
        f"compresscmd {shutil.which(program)}", f"uncompresscmd {shutil.which(inverse)}",
        f"compressext {extension}", "}",
    ]  # fmt: skip
    configuration.write_text("\n".join(lines) + "\n")
    configuration.chmod(0o644)
    desk, written = Desk(logs), 0

    def write(count: int) -> None:
        nonlocal written
        with desk.path("app.log").open("a") as file:
            file.writelines(f"line {written + number}\n" for number in range(count))
        written += count

    desk.now = time.time()
    write(3)
    desk.ship()
    for _ in range(3):
        for _ in range(rotations):
            write(20)
            argv = [str(LOGROTATE), "--force", "--state", str(state), str(configuration)]
            subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})
            write(5)
        desk.now = time.time()
        if kills:
            desk.kill()
        desk.ship()
    desk.settle()
    desk.close()
    assert desk.shipped["app"] == [f"line {number}" for number in range(written)]
    assert desk.complaints == []
