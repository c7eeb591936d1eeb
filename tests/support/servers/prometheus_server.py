"""A real Prometheus with the configuration of ``deploy/prometheus``.

Invariants:

1. The configuration is the deployed one except for the targets and the intervals.
2. Nothing is left running: ``close`` stops it in whatever state it is.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.support.browser.browser_desk import missing
from tests.support.paths import ROOT
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import free_port

DEPLOYED: Final = ROOT / "deploy" / "prometheus"
EVERY: Final = "500ms"
"""Interval of scrapes and rule evaluations."""


def find(program: str) -> str:
    """Return ``prometheus`` or ``promtool``; skip the test without one, except in CI."""
    return shutil.which(program) or missing(f"needs {program}; 'apt-get install prometheus' brings it")


class Prometheus:
    """One Prometheus; also a context manager that starts and stops it.

    Args:
        folder: folder of its configuration and data.
        targets: addresses by the name of the file that lists them, such as ``relays``.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]]) -> None:
        self._program = find("prometheus")
        self._folder = folder
        self._targets = targets
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shutil.copytree(DEPLOYED, self._folder / "deployed")
        path = self._folder / "deployed" / "prometheus.yml"
        config = yaml.safe_load(path.read_text())
        config["global"] = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
        path.write_text(yaml.safe_dump(config))
        for name, addresses in self._targets.items():
            there = path.parent / "targets" / f"{name}.yml"
            assert there.exists(), f"no target file of that name: {name}"
            there.write_text(yaml.safe_dump([{"targets": list(addresses)}]))
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program, f"--config.file={path}", f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}", "--enable-feature=exemplar-storage",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            eventually(self._ready, "Prometheus is ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate an expression; return each series with its value.

        Raises:
            AssertionError: Prometheus rejects the expression.
        """
        found = self.ask("query", query=expression)
        assert found["resultType"] in ("vector", "scalar"), expression
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in found["result"]]

    def ask(self, what: str, **parameters: str) -> Any:
        """Send a request to its API.

        Raises:
            AssertionError: it is rejected; the text contains the reason.
        """
        try:
            with urlopen(f"{self._url}/api/v1/{what}?{urlencode(parameters)}") as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended: {(self._folder / 'prometheus.log').read_text()[-2000:]}")
        try:
            with urlopen(f"{self._url}/-/ready"):
                return True
        except OSError:
            return False


__all__ = ["DEPLOYED", "Prometheus", "find"]
