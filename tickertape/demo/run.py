"""``tickertape demo``: starts everything in order, says where it is, and ends it in order.

Invariants:

1. The monitor, the shipper and the relay are the ordinary programs, called as anybody would call them.
2. However ``run`` returns, no child process is left.
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

from rich.console import Console
from rich.text import Text

from tickertape.demo.children import Child
from tickertape.demo.fleet import FLEET, Mood, write_moods
from tickertape.demo.ports import HOST, free_ports, port_or_free
from tickertape.demo.restart_api import PORT_NAME
from tickertape.demo.settings import DemoSettings
from tickertape.errors import OperatorError
from tickertape.process.console import print_notice
from tickertape.process.lockfile import acquire_lock
from tickertape.process.signals import STOP_SIGNALS, add_signal_handlers
from tickertape.process.tasks import race

READY_TIMEOUT: Final = 60.0
READY_WITHIN: Final = 100
"""Last lines of the relay among which its ``ready`` is looked for."""

MAX_RESTARTS: Final = 5
RESTART_DELAY: Final = 1.0
SHOWN_LINES: Final = 5
DRAIN: Final = "2"
"""Seconds that open pages have to leave; a demo ends quickly."""

RELAY_GRACE: Final = 20.0
"""Seconds for the relay to stop: its clients leave, then its NATS."""


class DemoError(OperatorError):
    """The demo cannot run."""


async def run(settings: DemoSettings) -> int:
    """Run the demo until a signal ends it.

    Returns:
        the exit code: 0 after a signal or at the end of its time, 1 when it cannot run.
    """
    try:
        with _lock(settings.folder):
            return await Demo(settings).run()
    except DemoError as error:
        print_notice("demo", str(error))
        return 1


class Demo:
    """One run of the demo; its folder is ours.

    Args:
        settings: what the user said.
    """

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._console = Console(highlight=False, soft_wrap=True)
        self._stopping = asyncio.Event()
        folder = settings.folder.absolute()
        self._folder = folder
        output, logs, moods = folder / "output", folder / "logs", folder / "moods.json"
        for path in (output, logs):
            path.mkdir(exist_ok=True)
        self.port = port_or_free(settings.port, 8080)
        self.ops_port = port_or_free(settings.ops_port, 9464, taken={self.port})
        self.nats_port = port_or_free(None, 4222, taken={self.port, self.ops_port})
        names = [PORT_NAME, *(name for member in FLEET for name in member.port_names())]
        taken = {self.port, self.ops_port, self.nats_port}
        ports = dict(zip(names, free_ports(len(names), taken), strict=True))
        (folder / "ports.json").write_text(json.dumps(ports))
        template = Template(Path(__file__).with_name("gateways.yaml").read_text())
        (folder / "gateways.yaml").write_text(template.substitute({k: str(v) for k, v in ports.items()}))
        write_moods(moods, {member.id: Mood.WELL for member in FLEET})

        program, nats = ["-m", "tickertape"], ["--nats-url", self.nats_url]
        seed = [] if settings.seed is None else ["--seed", str(settings.seed)]
        chance = ["--moods", str(moods), *seed]
        relay = [*program, "serve", "--port", str(self.port), "--ops-port", str(self.ops_port)]
        relay += ["--nats-port", str(self.nats_port), "--data-dir", str(folder / "relay"), "--drain", DRAIN]
        relay += ["--drain-delay", "0", "--log-format", "text"]
        self._relay = Child("relay", relay, output, RELAY_GRACE)
        self._gateways = Child(
            "gateways",
            ["-m", "tickertape.demo.gateways", "--ports", str(folder / "ports.json"), *chance],
            output,
        )
        self._service = Child(
            "service", ["-m", "tickertape.demo.log_service", "--logs", str(logs), *chance], output
        )
        self._monitor = Child(
            "monitor",
            [*program, "monitor", "--config", str(folder / "gateways.yaml"), "--id", "demo", *nats],
            output,
        )
        pattern = str(Path(glob.escape(str(logs))) / "*.log")
        ship = [*program, "ship", pattern, "--state-dir", str(folder / "ship"), *nats]
        self._ship = Child("ship", ship, output)

    @property
    def nats_url(self) -> str:
        """Where the relay's own NATS listens."""
        return f"nats://{HOST}:{self.nats_port}"

    async def run(self) -> int:
        """Start, wait, stop."""
        add_signal_handlers(lambda _: self._stopping.set(), *STOP_SIGNALS, signal.SIGHUP)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._relay.start()
            relay_gone = asyncio.create_task(self._relay.wait(), name="relay")
            tasks.append(relay_gone)
            if not await self._ready(relay_gone):
                return 0
            helpers = (self._gateways, self._service, self._monitor, self._ship)
            for child in helpers:
                await child.start()
            tasks += [asyncio.create_task(self._keep(child), name=child.name) for child in helpers]
            self._introduce()
            await race(self._stopping.wait(), relay_gone, seconds=self._settings.seconds)
            if relay_gone.done() and not self._stopping.is_set():
                raise self._relay_ended()
            return 0
        finally:
            self._stopping.set()
            await self._stop()
            await asyncio.gather(*tasks)

    async def _ready(self, relay_gone: asyncio.Task[int]) -> bool:
        """Wait until the relay says so; return False when a signal came first."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + READY_TIMEOUT
        while not self._stopping.is_set():
            if "ready" in self._relay.last_lines(READY_WITHIN):
                return True
            if relay_gone.done():
                raise self._relay_ended()
            if clock() > deadline:
                raise DemoError(
                    f"the relay is not ready after {READY_TIMEOUT:g} s", f"see {self._relay.output}"
                )
            await race(relay_gone, seconds=0.05)
        return False

    async def _keep(self, child: Child) -> None:
        """Start a child again when it ends by itself, a bounded number of times."""
        for restarts_left in range(MAX_RESTARTS, -1, -1):
            code = await child.wait()
            if self._stopping.is_set():
                return
            self._say(
                f"{child.name} has ended with {code}; its last lines, all in {child.output}:", "bold red"
            )
            for line in child.last_lines(SHOWN_LINES):
                self._say(f"  {line}", "dim")
            if not restarts_left:
                self._say(f"{child.name} is not started again; the demo goes on without it", "bold red")
                return
            try:
                async with asyncio.timeout(RESTART_DELAY):
                    await self._stopping.wait()
                return
            except TimeoutError:
                await child.start()
                self._say(f"{child.name} is started again", "yellow")

    async def _stop(self) -> None:
        """Stop in order: the last lines still arrive, and nobody watches gateways that are being stopped."""
        self._say("\nstopping …", "dim")
        for together in ((self._service, self._monitor), (self._ship, self._gateways), (self._relay,)):
            stopped = await asyncio.gather(*(child.stop() for child in together))
            for child, kindly in zip(together, stopped, strict=True):
                if not kindly:
                    self._say(f"{child.name} did not stop in time and was killed", "yellow")
        self._say("everything is stopped", "dim")

    def _relay_ended(self) -> DemoError:
        """Show the relay's last lines, which say why, and make the error."""
        for line in self._relay.last_lines(SHOWN_LINES):
            print(line, file=sys.stderr)
        return DemoError("the relay has ended", f"all of its lines are in {self._relay.output}")

    def _introduce(self) -> None:
        page, feed = f"http://{HOST}:{self.port}/", f"ws://{HOST}:{self.port}/ws"
        command = _command()
        self._say(
            f"\nTickertape demo: {len(FLEET)} gateways that fail and recover, two services that log\n", "bold"
        )
        rows = (
            ("page", page, "bold cyan"),
            ("listen", f"{command} tail --url {feed}", ""),
            (
                "publish",
                f"""{command} publish log.error.me '{{"message":"hello"}}' --nats-url {self.nats_url}""",
                "",
            ),
            ("metrics", f"http://{HOST}:{self.ops_port}/metrics", ""),
            ("files", f"{self._folder}  (gateways.yaml is worth copying)", ""),
        )
        for name, text, style in rows:
            self._console.print(Text.assemble(f"  {name:<9}", (text, style)))
        wanted = (
            (self._settings.port, self.port, 8080, "the page"),
            (self._settings.ops_port, self.ops_port, 9464, "metrics"),
            (None, self.nats_port, 4222, "NATS"),
        )
        for given, port, usual, what in wanted:
            if given is None and port != usual:
                self._say(f"  port {usual} is in use, so {what} took {port}", "yellow")
        self._say("\nCtrl-C ends everything.", "bold")

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(text, style))


def _command() -> str:
    """How this user calls the program."""
    if shutil.which("tickertape"):
        return "tickertape"
    beside = Path(sys.executable).with_name("tickertape")
    if beside.exists():
        return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
    return f"{Path(sys.executable).name} -m tickertape"


def _lock(folder: Path) -> IO[str]:
    try:
        return acquire_lock(folder / "lock")
    except BlockingIOError:
        raise DemoError(
            f"folder {folder} is in use by another demo", "stop that one, or give another --data-dir"
        ) from None
    except OSError as error:
        raise DemoError(
            f"folder {folder} cannot be used: {error.strerror}", "give another --data-dir"
        ) from None
