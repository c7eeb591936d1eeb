"""A real Prometheus with the configuration of ``deploy/prometheus``.

Invariants:

1. The configuration is the deployed one except for the targets, the intervals and, if asked for, the times
   that alerts wait and look back, which are shortened in a copy of the rules.
2. Nothing is left running: ``close`` stops it in whatever state it is.
"""

import json
import re
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

_SHORTENED: Final = {r"for: \d+[ms]": "for: 2s", r"\[[12]m\]": "[5s]", r"\[(?:5|10)m\]": "[8s]"}
"""Times in the rules, and what replaces them in a quick copy."""


def find(program: str) -> str:
    """Return a program of Prometheus or Alertmanager; skip the test without it, except in CI."""
    packages = "prometheus prometheus-alertmanager"
    return shutil.which(program) or missing(f"needs {program}; 'apt-get install {packages}' brings it")


class Prometheus:
    """One Prometheus; also a context manager that starts and stops it.

    Args:
        folder: folder of its configuration and data.
        targets: addresses by the name of the file that lists them, such as ``relays``.
        quick: alerts fire seconds after their cause, not minutes.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]], *, quick: bool = False) -> None:
        self._program = find("prometheus")
        self._quick = quick
        self._folder = folder
        self._targets = targets
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shutil.copytree(DEPLOYED, self._folder / "deployed")
        path = self._folder / "deployed" / "prometheus.yml"
        config = yaml.safe_load(path.read_text())
        every = "1s" if self._quick else EVERY
        config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        path.write_text(yaml.safe_dump(config))
        for name, addresses in self._targets.items():
            there = path.parent / "targets" / f"{name}.yml"
            assert there.exists(), f"no target file of that name: {name}"
            there.write_text(yaml.safe_dump([{"targets": list(addresses)}]))
        for rules in (path.parent / "rules").iterdir() if self._quick else ():
            text = rules.read_text()
            for pattern, shortened in _SHORTENED.items():
                text, count = re.subn(pattern, shortened, text)
                assert count or rules.name != "alerts.yml", pattern
            rules.write_text(text)
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program, f"--config.file={path}", f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}", "--enable-feature=exemplar-storage",
                    f"--web.external-url={self.url}", f"--web.user-assets={path.parent / 'runbook'}",
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
            with urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}") as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def active_alerts(self, *states: str) -> set[str]:
        """Return the names of the alerts in some states; by default of those that are pending or firing."""
        groups = self.ask("rules")["groups"]
        wanted = states or ("pending", "firing")
        return {rule["name"] for group in groups for rule in group["rules"] if rule.get("state") in wanted}

    @property
    def url(self) -> str:
        """URL of its pages."""
        return f"http://127.0.0.1:{self._port}"

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended: {(self._folder / 'prometheus.log').read_text()[-2000:]}")
        try:
            with urlopen(f"{self.url}/-/ready"):
                return True
        except OSError:
            return False


__all__ = ["DEPLOYED", "Prometheus", "find"]
