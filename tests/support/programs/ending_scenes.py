"""Programs that are told to end, each with what its work must have left behind."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml
from tickertape.relay.ingest import stream_reader

from tests.support.programs.ending_desk import Moment, Outcome, Program, processes_of, run_at
from tests.support.programs.relay_process import run
from tickertape.nats import connection

LINES: Final = 300
"""Lines that ``publish`` and ``ship`` read in each run."""

NEVER: Final = Moment(0, "")
"""A run that is not disturbed."""

_CURSOR: Final = re.compile(r"[0-9a-z]+(-\d+){1,2}\n")


class Scene:
    """Surroundings of the programs.

    Args:
        nats_url: URL of NATS.
        feed_url: URL of a relay's feed, for ``tail``.
        folder: folder for their files.
    """

    def __init__(self, nats_url: str, feed_url: str, folder: Path) -> None:
        self._nats_url = nats_url
        self._feed_url = feed_url
        self._folder = folder
        self._mark = f"probe-{folder.name}-{id(self):x}"
        self._lines = 0
        self._has_streams = False
        (folder / "logs").mkdir()
        probes = [
            {"kind": "tcp", "address": nats_url.removeprefix("nats://")},
            {"kind": "exec", "command": ["sh", "-c", f": {self._mark}; trap '' TERM HUP INT; sleep 600"]},
        ]
        gateway = {"id": "a", "type": "b", "probes": probes}
        defaults = {"interval": "50ms", "timeout": "9m"}
        (folder / "gateways.yaml").write_text(yaml.safe_dump({"defaults": defaults, "gateways": [gateway]}))

    def program(self, name: str) -> Program:
        """Return a program by the name of its scene."""
        nats = ("--nats-url", self._nats_url)
        ports = ("--port", "0", "--ops-port", "0", "--drain", "1", "--drain-delay", "0")
        ship = (*nats, "--state-dir", str(self._folder / "ship"), "--host", "h")
        logs = str(self._folder / "logs" / "*.log")
        events = b"".join(b'{"message": "MARK %d"}\n' % number for number in range(LINES))
        return {
            "serve": Program(("serve", *ports, *nats), daemon=True, hangs_up=False),
            "serve, embedded NATS": Program(
                ("serve", *ports, "--nats-port", "0", "--data-dir", str(self._folder / "relay")),
                daemon=True,
                hangs_up=False,
            ),
            "serve, workers": Program(
                ("serve", *ports, *nats, "--workers", "2"), daemon=True, hangs_up=False
            ),
            "monitor": Program(
                ("monitor", "--gateways", str(self._folder / "gateways.yaml"), "--id", "m", *nats),
                daemon=True,
                hangs_up=False,
            ),
            "monitor silence": Program(("monitor", "silence", "b/a", "--for", "1m", *nats), hangs_up=False),
            "ship": Program(("ship", logs, *ship), daemon=True, hangs_up=False),
            "ship once": Program(("ship", logs, "--once", *ship), hangs_up=False),
            "ship input": Program(
                ("ship", "-", *ship), stdin=events.replace(b"MARK", b"input MARK"), hangs_up=False
            ),
            "ship dry": Program(("ship", logs, "--once", "--dry-run"), hangs_up=False),
            "ship status": Program(("ship", "--status", *ship), hangs_up=False),
            "publish": Program(("publish", "log.info.desk", *nats), stdin=events),
            "publish, open input": Program(
                ("publish", "log.info.desk", *nats), stdin=events, stays_open=True
            ),
            "publish one": Program(("publish", "log.info.desk", '{"message": "MARK"}', *nats)),
            "tail": Program(
                ("tail", "--url", self._feed_url, "--state-file", str(self._folder / "cursor")), daemon=True
            ),
            "streams": Program(("streams", *nats)),
            "streams apply": Program(("streams", "apply", *nats)),
            "check": Program(("check", *nats)),
            "token keygen": Program(
                ("token", "keygen", "--jwt-algorithm", "EdDSA", "--public-file", f"{self._folder}/MARK.pem")
            ),
            "token inspect": Program(("token", "inspect", "a.b.c")),
            "schema": Program(("schema", "events")),
            "demo": Program(("demo", "--data-dir", str(self._folder / "demo")), daemon=True),
        }[name]

    def undisturbed(self, name: str) -> tuple[Program, Outcome]:
        """Run a program without a disturbance; return it with the exit code of that run."""
        program = self.program(name)
        self.prepare(name)
        outcome = run_at(program, NEVER)
        assert outcome.steps > 0, outcome
        assert b"Traceback" not in outcome.err, outcome
        program.code = 0 if program.stays_open else outcome.code
        return program, outcome

    def prepare(self, name: str) -> None:
        """Write what the next run of a program reads, and create the streams that it needs."""
        if name.startswith("publish") and not self._has_streams:
            assert run("streams", "apply", "--nats-url", self._nats_url).returncode == 0
            self._has_streams = True
        if name in ("ship", "ship once"):
            with (self._folder / "logs" / "a.log").open("a") as file:
                file.writelines(f"INFO line {self._lines + number}\n" for number in range(LINES))
            self._lines += LINES

    def check(self, name: str, moment: Moment, outcome: Outcome) -> None:
        """Check what a run has left behind.

        Raises:
            AssertionError: something is wrong; the text has the moment.
        """
        where = f"{moment} of {name}: {outcome}"
        assert not processes_of(self._mark), f"a probe still runs after {where}"
        if name.startswith("publish"):
            printed = len(outcome.out.splitlines())
            stored = len(self._stored(lambda message: outcome.mark in message))
            assert printed <= stored, where
            if outcome.code == 0:
                assert stored == (1 if name == "publish one" else LINES), where
                if "stdout" not in moment.disturbance and moment.disturbance not in ("both", "closed"):
                    assert printed == stored, where
        if name == "tail" and (self._folder / "cursor").exists():
            cursor = (self._folder / "cursor").read_text()
            assert _CURSOR.fullmatch(cursor), f"{cursor!r} {where}"
        if name == "token keygen" and (key := self._folder / f"{outcome.mark}.pem").exists():
            assert key.read_text().endswith("-----END PUBLIC KEY-----\n"), where

    def finish(self, name: str) -> None:
        """Check that the shipper has shipped every line exactly once, after all its runs."""
        if name in ("ship", "ship once"):
            program = self.program("ship once")
            last = run_at(program, NEVER)
            assert last.code == 0, last
            found = Counter(self._stored(lambda message: "line " in message))
            expected = Counter(f"INFO line {number}" for number in range(self._lines))
            assert found == expected, f"lost {expected - found}, repeated {found - expected}"

    def _stored(self, wanted: Callable[[str], bool]) -> list[str]:
        """Return the messages of log events in EVENTS that are wanted."""

        async def read() -> list[str]:
            client = await connection.connect_once(self._nats_url, name="desk")
            try:
                found = []
                async for batch in stream_reader.read(client, "EVENTS", 1):
                    for delivery in batch:
                        message = str(json.loads(delivery.data).get("message", ""))
                        if wanted(message):
                            found.append(message)
                return found
            finally:
                await connection.close(client)

        return asyncio.run(read())


SCENES: Final = (
    "serve", "serve, embedded NATS", "serve, workers", "monitor", "monitor silence", "ship", "ship once",
    "ship input", "ship dry", "ship status", "publish", "publish, open input", "publish one", "tail",
    "streams", "streams apply", "check", "token keygen", "token inspect", "schema", "demo",
)  # fmt: skip
