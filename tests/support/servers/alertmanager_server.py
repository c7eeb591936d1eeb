"""A real Alertmanager with the configuration of ``deploy/prometheus``, and a receiver of its webhooks.

Invariants:

1. The configuration is the deployed one except for the receivers' address and the times of notifications.
2. Nothing is left running.
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from tests.support.browser.browser_desk import missing
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import free_port
from tests.support.servers.prometheus_server import DEPLOYED

_SHORTENED: Final = {r"group_wait: \w+": "group_wait: 100ms", r"group_interval: \w+": "group_interval: 1s"}
"""Times between notifications, and what replaces them."""


@dataclass
class Notifications:
    """Notifications that a receiver of webhooks has got.

    Attributes:
        port: port of the receiver.
        received: path and alert of each, in order.
    """

    port: int
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def firing(self) -> dict[str, dict[str, Any]]:
        """Return the latest alert that was reported as firing, by name."""
        return {
            alert["labels"]["alertname"]: alert for _, alert in self.received if alert["status"] == "firing"
        }

    def unresolved(self) -> set[str]:
        """Return the names of alerts that were reported and whose end was not."""
        latest = {alert["fingerprint"]: alert for _, alert in self.received}
        return {alert["labels"]["alertname"] for alert in latest.values() if alert["status"] == "firing"}

    def paths(self, severity: str) -> set[str]:
        """Return the paths at which alerts of a severity arrived."""
        return {path for path, alert in self.received if alert["labels"]["severity"] == severity}


@contextmanager
def serve(answer: Callable[[str, bytes], tuple[int, bytes]]) -> Iterator[int]:
    """Serve HTTP on a loopback port, which is yielded.

    Args:
        answer: returns status and body of the response to a request with a path and a body.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep standard error free of access logs."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        block_on_close = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def webhook() -> Iterator[Notifications]:
    """Run a receiver of webhooks."""
    notifications = Notifications(0)

    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        notifications.received += [(path, alert) for alert in json.loads(body)["alerts"]]
        return 200, b""

    with serve(answer) as notifications.port:
        yield notifications


@contextmanager
def alertmanager(folder: Path, receiver: int) -> Iterator[str]:
    """Run Alertmanager; yield its address.

    Args:
        folder: folder of its configuration and data.
        receiver: port of the receiver of webhooks.
    """
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        missing("needs Alertmanager; 'apt-get install prometheus-alertmanager' brings it")
    text = (DEPLOYED / "alertmanager.yml").read_text()
    for pattern, shortened in _SHORTENED.items():
        text = re.sub(pattern, shortened, text)
    (folder / "alertmanager.yml").write_text(text.replace("127.0.0.1:8060", f"127.0.0.1:{receiver}"))
    address = f"127.0.0.1:{free_port()}"
    log = folder / "alertmanager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program, f"--config.file={folder / 'alertmanager.yml'}", f"--web.listen-address={address}",
                f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address=",
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(f"http://{address}/-/ready", timeout=PATIENCE):
                return True
        except OSError:
            return False

    try:
        eventually(ready, "Alertmanager is ready")
        yield address
    finally:
        process.kill()
        process.wait()


__all__ = ["Notifications", "alertmanager", "serve", "webhook"]
