"""The ``fix`` probe: log on, ask for a heartbeat, log out (FIX 4.x session layer).

An account may be banned for a few log-ins that fail, so their number per hour is capped, and past the cap
the gateway is not probed: it keeps its status.
"""

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CHUNK, answered, close, failed
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.probes.tls import trust

from tickertape.errors import TickertapeError
from tickertape.process.stream_writer import write
from tickertape.rate_limit import SlidingWindow

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_MESSAGES: Final = 100
"""Messages of the peer that are read before the one that is waited for counts as not sent."""

HOUR: Final = 3600.0

_SOH: Final = b"\x01"
_HEARTBEAT_SECONDS: Final = 30
_TEST: Final = "tickertape"

HEARTBEAT, TEST_REQUEST, REJECT, LOGOUT, LOGON = "0", "1", "3", "5", "A"


class FixError(TickertapeError):
    """The peer does not keep to the session layer of FIX, or refuses us; the text says how."""


class LogonCaps:
    """How often each account was logged on within the last hour."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], SlidingWindow] = {}

    def take(self, account: tuple[str, str], most: int, now: float) -> bool:
        """Count one more log-in, unless the hour has had its ``most``; ``now`` is monotonic, in seconds."""
        return self._windows.setdefault(account, SlidingWindow(HOUR)).allow(most, now)


class FixProbe(AddressProbe):
    """Logs on with FIX, asks for a heartbeat and logs out; never more often than the cap of log-ins."""

    kind: Literal["fix"]
    sender_comp_id: Annotated[str, Field(min_length=1)]
    target_comp_id: Annotated[str, Field(min_length=1)]
    begin_string: Literal["FIX.4.0", "FIX.4.1", "FIX.4.2", "FIX.4.3", "FIX.4.4"] = "FIX.4.4"
    username: str | None = None
    password_env: str | None = None
    """Environment variable that holds the password."""
    password_file: str | None = None
    tls: bool = False
    max_logons_per_hour: Annotated[int, Field(ge=1, le=3600, strict=True)] = 4
    """Accounts are banned for log-ins that fail; past the cap the gateway keeps its status unprobed."""

    async def probe(self, limit: float, context: ProbeContext) -> Result | None:
        host, port = self.endpoint
        clock = time.monotonic  # the loop's own clock stands still within a turn
        began = clock()
        account = (self.address, self.sender_comp_id)
        if not context.memory(LogonCaps).take(account, self.max_logons_per_hour, began):
            return None
        writer: asyncio.StreamWriter | None = None
        try:
            password = _password(self)
            async with asyncio.timeout(limit):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=trust() if self.tls else None, limit=CHUNK
                )
                session = _Session(self, reader, writer)
                await session.log_on(password)
                latency = clock() - began
                await session.log_out()
        except FixError as error:
            return failed(str(error))
        finally:
            if writer is not None:
                await close(writer)
        return answered(latency, self.degraded_above)


def message(begin: str, fields: list[tuple[int, str]]) -> bytes:
    """One FIX message: begin string, length, the fields, checksum."""
    body = b"".join(b"%d=%b\x01" % (tag, value.encode()) for tag, value in fields)
    head = b"8=%b\x019=%d\x01" % (begin.encode(), len(body))
    return head + body + b"10=%03d\x01" % (sum(head + body) % 256)


def fields_of(text: bytes) -> dict[int, str]:
    """Fields of a whole message; of one that repeats, the last.

    Raises:
        FixError: a field is none, or the checksum is wrong.
    """
    found: dict[int, str] = {}
    for part in text.rstrip(_SOH).split(_SOH):
        tag, equals, value = part.partition(b"=")
        if not equals or not tag.isdigit():
            raise FixError(f"answer is no FIX: {part[:40]!r}")
        found[int(tag)] = value.decode(errors="replace")
    body, _, _ = text.rpartition(b"10=")
    if found.get(10) != f"{sum(body) % 256:03d}":
        raise FixError("answer has a wrong checksum")
    return found


class _Session:
    """One session, from logon to logout."""

    def __init__(self, probe: FixProbe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._probe = probe
        self._reader = reader
        self._writer = writer
        self._sequence = 0
        self._buffer = b""

    async def log_on(self, password: str | None) -> None:
        """Log on, and have a test request answered: only then does the peer work and not just accept."""
        fields = [(98, "0"), (108, str(_HEARTBEAT_SECONDS)), (141, "Y")]
        if self._probe.username is not None:
            fields.append((553, self._probe.username))
        if password is not None:
            fields.append((554, password))
        await self._send(LOGON, fields)
        await self._wait(LOGON)
        await self._send(TEST_REQUEST, [(112, _TEST)])
        while (await self._wait(HEARTBEAT)).get(112) != _TEST:
            pass

    async def log_out(self) -> None:
        """Say goodbye, and let the peer say it too: it may count sessions that just vanish."""
        try:
            await self._send(LOGOUT, [])
            while (await self._next()).get(35) != LOGOUT:
                pass
        except (FixError, OSError):
            pass  # it has worked; how it hangs up says nothing

    async def _send(self, kind: str, fields: list[tuple[int, str]]) -> None:
        self._sequence += 1
        sent = datetime.now(UTC).strftime("%Y%m%d-%H:%M:%S.%f")[:-3]
        probe = self._probe
        head = [(35, kind), (49, probe.sender_comp_id), (56, probe.target_comp_id)]
        head += [(34, str(self._sequence)), (52, sent)]
        write(self._writer, message(probe.begin_string, head + fields))
        await self._writer.drain()

    async def _wait(self, wanted: str) -> dict[int, str]:
        for _ in range(MAX_MESSAGES):
            found = await self._next()
            kind = found.get(35)
            if kind == wanted:
                return found
            if kind in (LOGOUT, REJECT):
                raise FixError(f"peer refuses: {found.get(58) or 'it gives no reason'}")
            if kind == TEST_REQUEST:
                await self._send(HEARTBEAT, [(112, found.get(112, ""))])
        raise FixError(f"{MAX_MESSAGES} messages came, and none was the one that is due")

    async def _next(self) -> dict[int, str]:
        while (end := self._end()) is None:
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                raise FixError(f"a message is larger than {MAX_MESSAGE_BYTES} bytes")
            data = await self._reader.read(CHUNK)
            if not data:
                raise FixError("peer closed the connection")
            self._buffer += data
            if not self._buffer.startswith(b"8=FIX"[: len(self._buffer)]):
                raise FixError(f"answer is no FIX: {self._buffer[:40]!r}")
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        return fields_of(text)

    def _end(self) -> int | None:
        at = self._buffer.find(b"\x0110=")
        if at < 0:
            return None
        end = self._buffer.find(_SOH, at + 1)
        return end + 1 if end >= 0 else None


def _password(probe: FixProbe) -> str | None:
    if probe.password_env is not None:
        password = os.environ.get(probe.password_env)
        if password is None:
            raise FixError(f"environment variable {probe.password_env} is not set")
        return password
    if probe.password_file is not None:
        return Path(probe.password_file).read_text(encoding="utf-8").strip()
    return None
