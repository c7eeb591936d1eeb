"""The same cases against a real relay over real sockets, with an honest client that must not be affected."""

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from tickertape.contracts.messages import MAX_MESSAGE_BYTES
from websockets.asyncio.client import connect

from tests.fuzz.cases import END, PLAIN, SECRET, WAIT, Case
from tests.fuzz.inside import FoundError
from tests.support.clients.feed_client import FeedClient, jetstream, line, publish
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually

AT_ONCE: Final = 32
ANSWER_WAIT: Final = 1.0
"""Seconds that an untrusted client waits for a response to its last bytes."""

CPU_SECONDS: Final = 0.25
MOST_GROWTH: Final = 64 * 1024 * 1024
_FAULTS: Final = re.compile(
    r"an internal error|Fatal error|Exception in|Traceback|parser failed|never retrieved"
)


def options(folder: Path) -> list[str]:
    """Return the options of the relay that these cases are for."""
    key = folder / "key"
    key.write_bytes(SECRET)
    return ["--auth", "jwt", "--jwt-algorithm", "HS256", "--jwt-key-file", str(key)]


class Outside:
    """A real relay under attack.

    Args:
        relay: relay started with ``options``.
    """

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.events = 0
        self._capacity = asyncio.Semaphore(AT_ONCE)

    async def run(self, cases: list[Case]) -> None:
        """Run many cases concurrently, beside an honest client.

        Raises:
            FoundError: an invariant is violated.
        """
        headers = {"Authorization": f"Bearer {PLAIN[0]}"}
        async with (
            jetstream(self.relay.nats_url) as js,
            connect(
                self.relay.ws_url,
                additional_headers=headers,
                proxy=None,
                ping_interval=None,
                max_size=MAX_MESSAGE_BYTES,
            ) as link,
        ):
            honest = FeedClient(link)
            await honest.until(lambda: bool(honest.messages) and honest.messages[-1].type == "snapshot")
            files, memory = self._files(), self.relay.resident_bytes
            for start in range(0, len(cases), AT_ONCE):
                some = cases[start : start + AT_ONCE]
                cpu = self._cpu()
                await asyncio.gather(*map(self._one, some))
                spent = self._cpu() - cpu
                self.events += 1
                await publish(js, line(f"{self.events}", "ERROR"))
                try:
                    await asyncio.wait_for(honest.events(self.events), PATIENCE)
                except TimeoutError:
                    raise self._found(f"the honest client did not get event {self.events}", some) from None
                if spent > CPU_SECONDS * len(some):
                    raise self._found(f"{spent:.2f} s of CPU", some)
                if received := [text for text in self.relay.log if _FAULTS.search(text)]:
                    raise self._found("".join(received), some)
            await asyncio.to_thread(self._calm, files, memory)

    def _calm(self, files: int, memory: int) -> None:
        """Wait until all attackers are gone."""
        try:
            eventually(lambda: self._metric("tickertape_sockets") == 1, "the honest client is alone")
            eventually(lambda: self._files() <= files, "the descriptors of attackers are closed")
        except TimeoutError as error:
            raise FoundError(f"{error}; sockets: {self._metric('tickertape_sockets')}") from None
        for name, left in (("connections", 1), ("feeds", 1), ("sockets_unauthenticated", 0)):
            if (found := self._metric(f"tickertape_{name}")) != left:
                raise FoundError(f"{name}: {found}, not {left}")
        if (growth := self.relay.resident_bytes - memory) > MOST_GROWTH:
            raise FoundError(f"memory grew by {growth / 1e6:.0f} MB")

    def _found(self, problem: str, cases: list[Case]) -> FoundError:
        seeds = ", ".join(str(case.seed) for case in cases)
        return FoundError(f"{problem}\nwith cases of the seeds {seeds} over sockets")

    async def _one(self, case: Case) -> None:
        async with self._capacity:
            host, port = self.relay.host_port
            reader, writer = await asyncio.open_connection(host, port)
            try:
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(_play(case, reader, writer), PATIENCE)
            finally:
                writer.transport.abort()

    def _metric(self, name: str) -> float:
        with urlopen(f"{self.relay.ops_url}/metrics") as answer:
            found = re.search(rf"^{name} (\S+)", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else -1.0

    def _files(self) -> int:
        return len(os.listdir(f"/proc/{self.relay.pid}/fd"))

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.relay.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _play(case: Case, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def hear() -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass

    received: asyncio.Task[Any] = asyncio.ensure_future(hear())
    try:
        for step in case.steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0.002)  # otherwise the network would merge everything into one read
            elif step == WAIT:
                await asyncio.sleep(0.2)
            elif step == END:
                writer.write_eof()
                break
        await asyncio.wait([received], timeout=ANSWER_WAIT if case.stays else 0.02)
    finally:
        received.cancel()
        await asyncio.wait([received])
