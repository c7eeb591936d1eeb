"""``tickertape demo``: starts all parts in order, prints their addresses, and stops them in order.

Invariants:

1. The monitor, the shipper and the relay are the ordinary programs, started with documented options.
2. However ``run`` returns, no child process is left running.
"""

import asyncio
import glob
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from string import Template
from typing import IO, Any, Final

from rich.text import Text

from tickertape.demo.children import Child
from tickertape.demo.fleet import FLEET, Condition, write_conditions
from tickertape.demo.ports import free_ports, port_or_free
from tickertape.demo.restart_api import PORT_NAME
from tickertape.demo.settings import DemoSettings
from tickertape.errors import OperatorError
from tickertape.net.loopback import LOOPBACK, loopback_url
from tickertape.process.console import print_error, print_notice
from tickertape.process.lockfile import acquire_lock
from tickertape.process.signals import add_stop_handlers
from tickertape.process.tasks import race
from tickertape.process.terminal import Terminal

READY_TIMEOUT: Final = 60.0
"""Maximum seconds until the relay is ready."""

READY_WITHIN: Final = 100
"""Number of the relay's last output lines in which to search for ``ready``."""

MAX_RESTARTS: Final = 5
"""Maximum restarts of each child, after which the demo continues without it."""

RESTART_DELAY: Final = 1.0
"""Seconds from the exit of a child to its restart."""

SHOWN_LINES: Final = 5
"""Number of output lines to show after a child has exited."""

DRAIN: Final = "2"
"""Seconds to disconnect open pages; short, since a demo should stop quickly."""

RELAY_GRACE: Final = 20.0
"""Seconds that the relay has to stop: it disconnects its clients, then stops its NATS server."""

CHILD_GRACE: Final = 6.0
"""Seconds that each other child has to stop before it is killed."""

STOP_GRACE: Final = 2 * CHILD_GRACE + RELAY_GRACE + 5.0
"""Seconds that the demo has to stop its children, one group after the other."""


class DemoError(OperatorError):
    """Error that prevents the demo from running."""


async def run(settings: DemoSettings) -> int:
    """Run the demo until a signal ends it.

    Returns:
        The exit code: 0 after a signal or after ``--seconds``, 1 if the demo cannot run.
    """
    try:
        with _lock(settings.folder):
            return await Demo(settings).run()
    except DemoError as error:
        print_notice("demo", str(error))
        return 1


class Demo:
    """Run of the demo, with exclusive use of its folder.

    Args:
        settings: settings of the user.
    """

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._console = Terminal(soft_wrap=True)
        self._stopping = asyncio.Event()
        folder = settings.folder.absolute()
        self._folder = folder
        output, logs, conditions = folder / "output", folder / "logs", folder / "conditions.json"
        for path in (output, logs):
            path.mkdir(exist_ok=True)
        self.port = port_or_free(settings.port, 8080)
        self.ops_port = port_or_free(settings.ops_port, 9464, taken={self.port})
        self.nats_port = port_or_free(None, 4222, taken={self.port, self.ops_port})
        names = [PORT_NAME, *(name for gateway in FLEET for name in gateway.port_names())]
        taken = {self.port, self.ops_port, self.nats_port}
        ports = dict(zip(names, free_ports(len(names), taken), strict=True))
        (folder / "ports.json").write_text(json.dumps(ports), encoding="utf-8")
        template = Template(Path(__file__).with_name("gateways.yaml").read_text(encoding="utf-8"))
        host = f"[{LOOPBACK}]" if ":" in LOOPBACK else LOOPBACK
        gateways = template.substitute({k: str(v) for k, v in ports.items()}, host=host)
        (folder / "gateways.yaml").write_text(gateways, encoding="utf-8")
        write_conditions(conditions, {gateway.id: Condition.HEALTHY for gateway in FLEET})

        program, nats = ["-m", "tickertape"], ["--nats-url", self.nats_url]
        seed = [] if settings.seed is None else ["--seed", str(settings.seed)]
        simulation = ["--conditions", str(conditions), *seed]
        relay = [*program, "serve", "--port", str(self.port), "--ops-port", str(self.ops_port)]
        relay += ["--nats-port", str(self.nats_port), "--data-dir", str(folder / "relay"), "--drain", DRAIN]
        relay += ["--drain-delay", "0", "--log-format", "text"]
        self._relay = Child("relay", relay, output, RELAY_GRACE)
        self._gateways = Child(
            "gateways",
            ["-m", "tickertape.demo.gateways", "--ports", str(folder / "ports.json"), *simulation],
            output,
        )
        self._service = Child(
            "service", ["-m", "tickertape.demo.log_service", "--logs", str(logs), *simulation], output
        )
        self._monitor = Child(
            "monitor",
            [*program, "monitor", "--gateways", str(folder / "gateways.yaml"), "--id", "demo", *nats],
            output,
        )
        pattern = str(Path(glob.escape(str(logs))) / "*.log")
        ship = [*program, "ship", pattern, "--state-dir", str(folder / "ship"), *nats]
        self._ship = Child("ship", ship, output)
        self._children = (self._relay, self._gateways, self._service, self._monitor, self._ship)

    @property
    def nats_url(self) -> str:
        """URL of the embedded NATS server."""
        return loopback_url("nats", self.nats_port)

    async def run(self) -> int:
        """Start the children, wait until the demo ends, and stop them."""
        add_stop_handlers(self._receive, STOP_GRACE, hangup=True)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._relay.start()
            relay_exit = asyncio.create_task(self._relay.wait(), name="relay")
            tasks.append(relay_exit)
            if not await self._ready(relay_exit):
                return 0
            producers = (self._gateways, self._service, self._monitor, self._ship)
            for child in producers:
                await child.start()
            tasks += [
                asyncio.create_task(self._restart_on_exit(child), name=child.name) for child in producers
            ]
            self._print_addresses()
            await race(self._stopping.wait(), relay_exit, seconds=self._settings.seconds)
            if relay_exit.done() and not self._stopping.is_set():
                raise self._relay_exited()
            return 0
        finally:
            self._stopping.set()
            await self._stop()
            await asyncio.gather(*tasks)

    def _receive(self, _: signal.Signals) -> None:
        if self._stopping.is_set():
            for child in self._children:
                child.kill()
        self._stopping.set()

    async def _ready(self, relay_exit: asyncio.Task[int]) -> bool:
        """Wait until the relay is ready; return False if a signal arrives first."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + READY_TIMEOUT
        while not self._stopping.is_set():
            if "ready" in self._relay.last_lines(READY_WITHIN):
                return True
            if relay_exit.done():
                raise self._relay_exited()
            if clock() > deadline:
                raise DemoError(f"relay not ready after {READY_TIMEOUT:g} s", f"see {self._relay.output}")
            await race(relay_exit, seconds=0.05)
        return False

    async def _restart_on_exit(self, child: Child) -> None:
        """Restart a child when it exits, at most ``MAX_RESTARTS`` times."""
        for restarts_left in range(MAX_RESTARTS, -1, -1):
            code = await child.wait()
            if self._stopping.is_set():
                return
            self._print(
                f"{child.name} exited with code {code}; end of its output in {child.output}:", "bold red"
            )
            for line in child.last_lines(SHOWN_LINES):
                self._print(f"  {line}", "dim")
            if not restarts_left:
                self._print(f"{child.name} failed too often; the demo continues without it", "bold red")
                return
            try:
                async with asyncio.timeout(RESTART_DELAY):
                    await self._stopping.wait()
                return
            except TimeoutError:
                await child.start()
                self._print(f"{child.name} restarted", "yellow")

    async def _stop(self) -> None:
        """Stop the children in order.

        The shipper outlives the log service to ship the last lines. The gateways outlive the monitor, which
        would otherwise report them as failed.
        """
        self._print("\nstopping …", "dim")
        for group in ((self._service, self._monitor), (self._ship, self._gateways), (self._relay,)):
            stopped = await asyncio.gather(*(child.stop() for child in group))
            for child, in_time in zip(group, stopped, strict=True):
                if not in_time:
                    self._print(f"{child.name} did not stop in time and was killed", "yellow")
        self._print("all processes stopped", "dim")

    def _relay_exited(self) -> DemoError:
        """Print the relay's last output lines, which show why it exited, and return the error."""
        for line in self._relay.last_lines(SHOWN_LINES):
            print_error(line)
        return DemoError("relay exited", f"see its output in {self._relay.output}")

    def _print_addresses(self) -> None:
        page, feed = loopback_url("http", self.port, "/"), loopback_url("ws", self.port, "/ws")
        command = _command()
        self._print(
            f"\nTickertape demo: {len(FLEET)} gateways that fail and recover, two services that write logs\n",
            "bold",
        )
        rows = (
            ("page", page, "bold cyan"),
            ("listen", f"{command} tail --url {feed}", ""),
            (
                "publish",
                f"""{command} publish log.error.me '{{"message":"hello"}}' --nats-url {self.nats_url}""",
                "",
            ),
            ("metrics", loopback_url("http", self.ops_port, "/metrics"), ""),
            ("files", f"{self._folder}  (gateways.yaml is worth copying)", ""),
        )
        for name, text, style in rows:
            self._console.print(Text.assemble(f"  {name:<9}", (text, style)))
        ports = (
            (self._settings.port, self.port, 8080, "the web page"),
            (self._settings.ops_port, self.ops_port, 9464, "metrics"),
            (None, self.nats_port, 4222, "NATS"),
        )
        for requested, port, preferred, service in ports:
            if requested is None and port != preferred:
                self._print(f"  port {preferred} is in use; {service} uses port {port}", "yellow")
        self._print("\nPress Ctrl-C to stop.", "bold")

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(text, style))


def _command() -> str:
    """Return the command that starts the program on this machine."""
    if shutil.which("tickertape"):
        return "tickertape"
    sibling = Path(sys.executable).with_name("tickertape")
    if sibling.exists():
        return os.path.relpath(sibling) if sibling.is_relative_to(Path.cwd()) else str(sibling)
    return f"{Path(sys.executable).name} -m tickertape"


def _lock(folder: Path) -> IO[str]:
    try:
        return acquire_lock(folder / "lock")
    except BlockingIOError:
        raise DemoError(
            f"folder {folder} is in use by another demo", "stop that demo, or set another --data-dir"
        ) from None
    except OSError as error:
        raise DemoError(f"cannot use folder {folder}: {error.strerror}", "set another --data-dir") from None
