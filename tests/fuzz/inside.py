"""The relay's acceptor, HTTP and WebSocket protocols in this process, on transports without sockets.

Invariants after each case: no exception was raised or logged, all counts are back at their values, the bytes
written are legal, no case took long, and the honest client beside it receives its events.
"""

import asyncio
import gc
import logging
import random
import socket
import time
from typing import Any, Final, cast

from tickertape.contracts.messages import MAX_MESSAGE_BYTES
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.core.limit_counters import LocalLimitCounters
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.routes import main_app
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.relay import session_failed
from tickertape.relay.transport.acceptor import Acceptor
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.protocol import RESPONSE_TIMEOUT, GuardedHttp
from tickertape.relay.transport.http.server import HttpServer
from tickertape.relay.transport.listener import Listener
from tickertape.relay.transport.websocket.connection import Connection, websocket_protocol
from uvicorn.server import ServerState
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol

from tests.fuzz.cases import CAPACITY, END, FULL, NOW, PLAIN, WAIT, Case, verifier
from tests.fuzz.heads import upgrade
from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.fake_link import log_event, nanoseconds, status_event
from tickertape.names import Names
from tickertape.nats.streams import StreamsError

CPU_SECONDS: Final = 0.25
"""Maximum CPU seconds of one case."""

THREAD_SECONDS: Final = 5.0
"""Maximum CPU seconds of reading a file."""

MOST_WRITTEN: Final = 4 * 1024 * 1024
PATIENCE: Final = (6.0, 6.0, 20.0, RESPONSE_TIMEOUT)
"""Seconds after which the relay must have closed every connection without a session."""

_EVERY: Final = 50
_DEFLATE: Final = [PerMessageDeflate(True, True, 15, 15)]


class FoundError(AssertionError):
    """A violated invariant; the text describes it."""


class _Faults(logging.Handler):
    """Handler that keeps everything that is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


class Inside:
    """A relay without sockets, for use within a running ``StandingLoop``.

    Attributes:
        cases: number of cases run so far.
        slowest: CPU seconds of the slowest case, and its seed.
    """

    def __init__(self) -> None:
        self.loop = cast(StandingLoop, asyncio.get_running_loop())
        self.cases = 0
        self.slowest = (0.0, 0)
        self._faults = _Faults()
        logging.getLogger().addHandler(self._faults)
        self.loop.set_exception_handler(self._unhandled)
        verify = verifier().verify
        self.hub = Hub(HubSettings(log_events=200), self._wake, verify=verify, report=session_failed)
        self._counters = LocalLimitCounters()
        self.admission = Admission(
            Limits(connections=100, unauthenticated=20, subject_connections=100), counters=self._counters
        )
        self.connections = Connections(
            self.hub, self._now, RequestAuth(verify, Origins("https://app.example.com")), self.admission
        )
        self.acceptor = Acceptor(self.admission, self._now, GuardedHttp)
        with socket.socket() as unused:
            history = History(self.hub, cast(ReplayReaders, NoReaders()))
            gateways = GatewayHistory(self.hub, Names(), (">",))
            listener = Listener("127.0.0.1", [unused])
            server = HttpServer(
                main_app(self.connections, history, gateways), listener, websocket_protocol(self.connections)
            )
        self._config = server.config
        self._config.load()
        self._state = ServerState()
        self._woken = False
        self._seq = 0
        self.hub.begin("e", 0)
        self.hub.sessions.set_upstream(True, NOW)
        for _ in range(20):
            self._publish()
        self._honest = FakeTransport(self.loop)
        self._honest.open(self._protocol())
        lines = [*upgrade_lines(), f"Authorization: Bearer {PLAIN[0]}", "", ""]
        self._honest.receive("\r\n".join(lines).encode())
        if b'"subscribed"' not in self._honest.written:
            raise FoundError(f"the honest client is not served: {bytes(self._honest.written)!r}")
        self._calm = self._counts()

    def close(self) -> None:
        """Undo the changes to the process."""
        logging.getLogger().removeHandler(self._faults)
        self._honest.lose()

    def open(self) -> FakeTransport:
        """Open a connection that has not sent anything yet."""
        transport = FakeTransport(self.loop)
        transport.open(self._protocol())
        return transport

    async def run(self, case: Case) -> None:
        """Run a case.

        Raises:
            FoundError: an invariant is violated.
        """
        began = time.thread_time()
        self.cases += 1
        transport = self.open()
        try:
            await self._do(case, transport)
        except Exception as error:
            raise FoundError(f"{error!r}\n{case}") from error
        took = time.thread_time() - began
        self.slowest = max(self.slowest, (took, case.seed))
        problem = (
            "\n".join(self._faults.found)
            or (took > CPU_SECONDS and f"it took {took:.3f} s of CPU")
            or (len(transport.written) > MOST_WRITTEN and f"it was sent {len(transport.written)} bytes")
            or (self._counts() != self._calm and f"left behind: {self._counts()}, not {self._calm}")
            or illegal(bytes(transport.written))
        )
        if not problem and self.cases % _EVERY == 0:
            problem = await self._beside()
        if problem:
            self._faults.found.clear()
            raise FoundError(f"{problem}\n{case}")

    async def _do(self, case: Case, transport: FakeTransport) -> None:
        for step in case.steps:
            if isinstance(step, bytes):
                transport.receive(step)
            elif step == WAIT:
                await self._pass(3.0, transport)
            elif step == END:
                transport.end()
            else:
                assert step in (FULL, CAPACITY)
                transport.fill(full=step == FULL)
            if self._woken:
                self._flush()
            if transport.is_closing():
                break
            if self._state.tasks and not transport.full:
                await self._settle(transport)
        if case.stays:
            for seconds in PATIENCE:
                await self._pass(seconds, transport)
            if not transport.lost and not isinstance(transport.get_protocol(), Connection):
                raise FoundError("the relay never got rid of it")
            if self.admission.pending:
                raise FoundError("it has no session and is still there")
        transport.lose()
        await self._settle(transport)

    async def _settle(self, transport: FakeTransport) -> None:
        """Wait until requests are answered, unless their client does not read."""
        await asyncio.sleep(0)
        for _ in range(100):
            if not self._state.tasks or (transport.full and not transport.lost):
                return
            await asyncio.sleep(0)
        began = time.monotonic()
        while self._state.tasks:
            # Files are read in threads, which takes real time.
            time.sleep(0.001)
            await asyncio.sleep(0)
            if time.monotonic() - began > THREAD_SECONDS:
                raise FoundError(f"{len(self._state.tasks)} requests hang")

    async def _pass(self, seconds: float, transport: FakeTransport) -> None:
        await self.loop.pass_time(seconds)
        await self._settle(transport)
        self.hub.tick(self._now())
        self._flush()
        await asyncio.sleep(0)

    async def _beside(self) -> str:
        """Check that the honest client receives what is published; return "" if it does."""
        del self._honest.written[:]
        self._publish()
        await self._pass(1.0, self._honest)
        if b'"seq":%d,' % self._seq not in self._honest.written:
            return f"the honest client did not get event {self._seq}: {bytes(self._honest.written)!r:.300}"
        if (timers := self.loop.timers()) > 5:
            return f"{timers} timers are left behind"
        return illegal(b"HTTP/1.1 101 x\r\n\r\n" + self._honest.written)

    def _protocol(self) -> Any:
        return self.acceptor.protocol(
            config=self._config, server_state=self._state, app_state={}, _loop=self.loop
        )

    def _publish(self) -> None:
        self._seq += 1
        if self._seq % 5 == 0:
            self.hub.publish(
                self._seq, "gateway.status.ctp.a", status_event(), nanoseconds(self._now()), self._now()
            )
        else:
            self.hub.publish(
                self._seq, "log.error.x", log_event("error"), nanoseconds(self._now()), self._now()
            )

    def _flush(self) -> None:
        self._woken = False
        self.hub.fanout.flush(self._now())

    def _wake(self) -> None:
        self._woken = True

    def _now(self) -> float:
        return NOW + self.loop.now

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._faults.found.append(f"unhandled: {context}")

    def _counts(self) -> dict[str, int]:
        return {
            "sockets": self.admission.open,
            "without a session": self.admission.pending,
            "connections": len(self.connections),
            "sessions": len(self.hub.sessions),
            "feeds": len(self.hub.fanout.feeds),
            "behind": self.hub.fanout.behind,
            "counted for limits": self._counters.counted,
            "lingering": self.acceptor.lingering.total(),
            "requests": len(self._state.tasks),
            "HTTP": len(self._state.connections),
        }


class NoReaders:
    """Readers that cannot read events older than the relay's memory."""

    async def position_at(self, moment: float) -> int:
        raise StreamsError("the stream does not answer", "try again")

    async def chunk_after(self, position: int) -> Any:
        raise StreamsError("the stream does not answer", "try again")


def upgrade_lines() -> list[str]:
    """Return a valid handshake without a token."""
    return upgrade(random.Random(), PLAIN, "/ws")[:6]


def illegal(written: bytes) -> str:
    """Describe what is illegal in the bytes that a relay wrote; return "" if they are legal."""
    if not written:
        return ""
    if not written.startswith(b"HTTP/1.1 "):
        return f"no HTTP answer: {written[:300]!r}"
    head, _, rest = written.partition(b"HTTP/1.1 101 ")[2].partition(b"\r\n\r\n")
    if not head or not rest:
        return ""
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=MAX_MESSAGE_BYTES)
    if b"permessage-deflate" in head:
        client.extensions = list(_DEFLATE)
    client.receive_data(rest)
    if isinstance(client.parser_exc, ProtocolError):
        return f"broken frames: {client.parser_exc}: {rest[:300]!r}"
    return ""


def living() -> int:
    """Return the connections and requests in memory, including those that await garbage collection."""
    if gc.isenabled():
        gc.collect()
    return sum(isinstance(one, Connection | GuardedHttp | ServerProtocol) for one in gc.get_objects())
