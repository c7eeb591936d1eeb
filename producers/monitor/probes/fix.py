"""Probe ``fix``: log on, request a heartbeat, log out (FIX 4.x session layer).

A venue may ban an account after a few failed logons. Therefore their number per hour is limited; at the limit
the gateway is not probed and keeps its status.
"""

import asyncio
import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import answered, failed, redact
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.probes.tls import create_ssl_context

from tickertape.errors import TickertapeError
from tickertape.net.http_client import CHUNK, close
from tickertape.net.outgoing import open_connection, write
from tickertape.rate_limit import SlidingWindow

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Maximum size of a message; a larger one is an error of the peer."""

MAX_MESSAGES: Final = 100
"""Messages read from the peer before the expected one counts as missing."""

PIECE: Final = 2 * 1024
"""Bytes that are parsed in one turn of the event loop: they may contain a hundred messages."""

LOGOUT_GRACE: Final = 1.0
"""Seconds for the peer to answer the logout, in addition to the probe's timeout."""

HOUR: Final = 3600.0
"""Window of the logon limit, in seconds."""

_SOH: Final = b"\x01"
_HEARTBEAT_SECONDS: Final = 30
"""HeartBtInt in the logon, in seconds."""

_TEST_REQUEST_ID: Final = "tickertape"

HEARTBEAT, TEST_REQUEST, REJECT, LOGOUT, LOGON = "0", "1", "3", "5", "A"


class FixError(TickertapeError):
    """Violation of the FIX session layer by the peer, or a rejected logon."""


class LogonLimits:
    """Logons of each account within the last hour."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], SlidingWindow] = {}

    def allow(self, account: tuple[str, str], limit: int, now: float) -> bool:
        """Count a logon and return True, or return False at ``limit``; ``now`` is monotonic, in seconds."""
        return self._windows.setdefault(account, SlidingWindow(HOUR)).allow(limit, now)


class FixProbe(AddressProbe):
    """FIX session that logs on, requests a heartbeat and logs out, at most ``max_logons_per_hour`` times."""

    kind: Literal["fix"]
    sender_comp_id: Annotated[str, Field(min_length=1)]
    target_comp_id: Annotated[str, Field(min_length=1)]
    begin_string: Literal["FIX.4.0", "FIX.4.1", "FIX.4.2", "FIX.4.3", "FIX.4.4"] = "FIX.4.4"
    username: str | None = None
    password_env: str | None = None
    """Name of the environment variable that contains the password."""
    password_file: str | None = None
    tls: bool = False
    max_logons_per_hour: Annotated[int, Field(ge=1, le=3600, strict=True)] = 4
    """Limit of logons, since venues ban accounts for failed ones; at the limit the gateway is not probed."""

    async def probe(self, time_limit: float, context: ProbeContext) -> Result | None:
        host, port = self.endpoint
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        account = (self.address, self.sender_comp_id)
        # Counted before connecting: the venue may count a logon that fails or times out here.
        if not context.state(LogonLimits).allow(account, self.max_logons_per_hour, started):
            return None
        writer: asyncio.StreamWriter | None = None
        password: str | None = None
        try:
            password = _read_password(self)
            async with asyncio.timeout(time_limit):
                reader, writer = await open_connection(
                    host, port, tls=create_ssl_context() if self.tls else None, limit=CHUNK
                )
                session = _Session(self, reader, writer)
                await session.log_on(password)
                latency = clock() - started
            await session.log_out()
        except FixError as error:
            # A venue may quote the logon that it rejects.
            return failed(redact(str(error), {"password": password or ""}))
        finally:
            if writer is not None:
                await close(writer)
        return answered(latency, self.degraded_above)


def encode_message(begin_string: str, fields: list[tuple[int, str]]) -> bytes:
    """Encode a FIX message: begin string, length, fields and checksum."""
    body = b"".join(b"%d=%b\x01" % (tag, value.encode()) for tag, value in fields)
    head = b"8=%b\x019=%d\x01" % (begin_string.encode(), len(body))
    return head + body + b"10=%03d\x01" % (sum(head + body) % 256)


def parse_fields(data: bytes) -> dict[int, str]:
    """Parse the fields of a complete message; of a repeated field, the last value counts.

    Raises:
        FixError: a field is malformed, or the checksum is wrong.
    """
    fields: dict[int, str] = {}
    for part in data.rstrip(_SOH).split(_SOH):
        tag, equals, value = part.partition(b"=")
        if not equals or not tag.isdigit():
            raise FixError(f"response is not FIX: {part[:40]!r}")
        fields[int(tag)] = value.decode(errors="replace")
    # The checksum covers all bytes before its own field.
    body, _, _ = data.rpartition(b"10=")
    if fields.get(10) != f"{sum(body) % 256:03d}":
        raise FixError("response has a wrong checksum")
    return fields


class _Session:
    """FIX session, from logon to logout."""

    def __init__(self, probe: FixProbe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._probe = probe
        self._reader = reader
        self._writer = writer
        self._sequence = 0
        self._buffer = b""

    async def log_on(self, password: str | None) -> None:
        """Log on and wait for the reply to a test request; a peer that only accepts logons fails."""
        # No encryption, the heartbeat interval, and a reset of the sequence numbers (141), because no numbers
        # are kept between two sessions.
        fields = [(98, "0"), (108, str(_HEARTBEAT_SECONDS)), (141, "Y")]
        if self._probe.username is not None:
            fields.append((553, self._probe.username))
        if password is not None:
            fields.append((554, password))
        await self._send(LOGON, fields)
        await self._receive(LOGON)
        await self._send(TEST_REQUEST, [(112, _TEST_REQUEST_ID)])
        while (await self._receive(HEARTBEAT)).get(112) != _TEST_REQUEST_ID:
            pass

    async def log_out(self) -> None:
        """Log out and wait for the peer's logout, since a venue may count sessions that end without one.

        The probe has succeeded by then; a logout that fails or times out does not change that.
        """
        with contextlib.suppress(FixError, OSError, TimeoutError):
            async with asyncio.timeout(LOGOUT_GRACE):
                await self._send(LOGOUT, [])
                while (await self._receive_any()).get(35) != LOGOUT:
                    pass

    async def _send(self, kind: str, fields: list[tuple[int, str]]) -> None:
        self._sequence += 1
        sent = datetime.now(UTC).strftime("%Y%m%d-%H:%M:%S.%f")[:-3]
        probe = self._probe
        head = [(35, kind), (49, probe.sender_comp_id), (56, probe.target_comp_id)]
        head += [(34, str(self._sequence)), (52, sent)]
        write(self._writer, encode_message(probe.begin_string, head + fields))
        await self._writer.drain()

    async def _receive(self, expected: str) -> dict[int, str]:
        for _ in range(MAX_MESSAGES):
            fields = await self._receive_any()
            kind = fields.get(35)
            if kind == expected:
                return fields
            if kind in (LOGOUT, REJECT):
                raise FixError(f"rejected by the peer: {fields.get(58) or 'no reason given'}")
            # A peer ends a session that does not answer its test requests.
            if kind == TEST_REQUEST:
                await self._send(HEARTBEAT, [(112, fields.get(112, ""))])
        raise FixError(f"expected message not among the first {MAX_MESSAGES}")

    async def _receive_any(self) -> dict[int, str]:
        while (end := self._message_end()) is None:
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                raise FixError(f"message larger than {MAX_MESSAGE_BYTES} bytes")
            data = await self._reader.read(PIECE)
            await asyncio.sleep(0)  # the read itself does not suspend while bytes are buffered
            if not data:
                raise FixError("peer closed the connection")
            self._buffer += data
            # A peer with another protocol is recognized by its first bytes, not by a timeout.
            if not self._buffer.startswith(b"8=FIX"[: len(self._buffer)]):
                raise FixError(f"response is not FIX: {self._buffer[:40]!r}")
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        return parse_fields(data)

    def _message_end(self) -> int | None:
        checksum = self._buffer.find(b"\x0110=")
        if checksum < 0:
            return None
        end = self._buffer.find(_SOH, checksum + 1)
        return end + 1 if end >= 0 else None


def _read_password(probe: FixProbe) -> str | None:
    if probe.password_env is not None:
        password = os.environ.get(probe.password_env)
        if password is None:
            raise FixError(f"environment variable {probe.password_env} is not set")
        return password
    if probe.password_file is not None:
        return Path(probe.password_file).read_text(encoding="utf-8").strip()
    return None
