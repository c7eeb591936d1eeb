"""Probe ``tcp``: connect, exchange texts, and stay connected, since a CTP front may accept and then drop.

Invariants:

1. A received line is matched once, and a received beginning of a line with each piece that follows.
2. A beginning of a line matches only if the line matches with the same groups, however it continues.
3. Nothing that the peer sent before TLS counts as received over TLS.
"""

import asyncio
import contextlib
import re
import time
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.options.patterns import (
    RegularExpression,
    compile_pattern,
    show,
)
from tickertape.producers.monitor.probes.options.secrets import (
    SecretFile,
    Variable,
    check_one_source,
    read_secret,
)
from tickertape.producers.monitor.probes.options.tls import OptionalTls
from tickertape.producers.monitor.probes.result import answered, describe, failed
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import Duration, Settings

from tickertape.errors import TickertapeError
from tickertape.net.http_client import CHUNK, close
from tickertape.net.outgoing import PlainTextError, open_connection, start_tls, write
from tickertape.validation import checked_by

MAX_LINE_BYTES: Final = 8 * 1024
"""Maximum size of a received line."""

MAX_RECEIVED_BYTES: Final = 64 * 1024
"""Bytes received before an expected line counts as missing."""

PIECE: Final = 2 * 1024
"""Bytes that are matched in one turn of the event loop."""

LINE_GRACE: Final = 0.2
"""Seconds for the rest of a line before TLS begins; some replies, as in XMPP, have no line break."""

_CONTINUATIONS: Final = ("a", "0", " ", "-", "\ufffd")
"""Characters with which a line may continue: two of a word, and others."""

_GROUP: Final = re.compile(r"\$\{([0-9]+)\}")
"""Reference to a group of the latest expected line."""


def _check_escapes(text: str) -> None:
    """Reject a line break that YAML has not decoded."""
    if "\\r" in text or "\\n" in text:
        raise ValueError(r'contains a backslash; write line breaks in double quotes, such as "PING\r\n"')


Text = Annotated[str, Field(min_length=1), checked_by(_check_escapes)]
"""Text to send, exactly as it is."""


class Step(Settings):
    """Step of the exchange: a text to send, a line to expect, or the change to TLS."""

    send: Text | None = None
    send_env: Variable | None = None
    """Environment variable with a text to send, to which a line break is added."""
    send_file: SecretFile | None = None
    """File with a text to send, whose last line break is replaced with CR and LF."""
    expect: RegularExpression | None = None
    """Regular expression that a line must match; ``${1}`` in later texts stands for its first group."""
    starttls: Literal[True] | None = None

    @model_validator(mode="after")
    def _check_action(self) -> "Step":
        actions = (self.send, self.send_env, self.send_file, self.expect, self.starttls)
        if sum(action is not None for action in actions) != 1:
            raise ValueError("needs exactly one of 'send', 'send_env', 'send_file', 'expect' and 'starttls'")
        return self

    def read_secret(self) -> str | None:
        """Read the secret to send; None if this step sends none."""
        return read_secret(self.send_env, self.send_file)


class ExchangeError(TickertapeError):
    """Failure of a step."""


class TcpProbe(OptionalTls, AddressProbe):
    """TCP connection whose peer answers as expected and keeps it open for ``hold``."""

    kind: Literal["tcp"]
    hold: Duration = 0.0
    send: Text | None = None
    expect: RegularExpression | None = None
    """Regular expression that a received line must match; ``send`` is sent before."""
    steps: Annotated[list[Step], Field(min_length=1, max_length=50)] | None = None
    """Longer exchange, instead of ``send`` and ``expect``."""

    @model_validator(mode="after")
    def _check_steps(self) -> "TcpProbe":
        check_one_source(self, ("send", "steps"))
        check_one_source(self, ("expect", "steps"))
        if (changes := sum(step.starttls is not None for step in self.steps or ())) + self.tls > 1:
            raise ValueError(f"TLS begins {changes + self.tls} times; keep one 'starttls', or 'tls: true'")
        groups = 0
        for step in self.all_steps:
            if step.expect is not None:
                groups = compile_pattern(step.expect).groups
            for number in _GROUP.findall(step.send or ""):
                if int(number) > groups:
                    raise ValueError(
                        f"'${{{number}}}' needs an 'expect' before it that has {number} groups; add them"
                    )
        return self

    @property
    def uses_starttls(self) -> bool:
        return any(step.starttls is not None for step in self.steps or ())

    @property
    def all_steps(self) -> list[Step]:
        """Steps of the exchange, in order."""
        if self.steps is not None:
            return self.steps
        sent = [Step(send=self.send)] if self.send is not None else []
        return sent + ([Step(expect=self.expect)] if self.expect is not None else [])

    @property
    def tls_is_unconfirmed(self) -> bool:
        """Whether no line is expected after TLS began, which would show that the peer accepts the client."""
        steps = self.all_steps
        changes = [index for index, step in enumerate(steps, 1) if step.starttls] or ([0] if self.tls else [])
        return any(all(step.expect is None for step in steps[index:]) for index in changes)

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        host, port = self.endpoint
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        secrets = [step.read_secret() for step in self.all_steps]
        end = asyncio.get_running_loop().time() + time_limit
        async with asyncio.timeout_at(end):
            reader, writer = await open_connection(
                host, port, tls=self.first_context, server_name=self.server_name, limit=CHUNK
            )
        handshake = clock() - started
        try:
            exchange = _Exchange(self, reader, writer, secrets)
            try:
                async with asyncio.timeout_at(end):
                    await exchange.run()
            except TimeoutError:
                return failed(f"{exchange.phase}: {exchange.progress} within {time_limit:g} s")
            except ExchangeError as error:
                return failed(f"{exchange.phase}: {error}")
            except OSError as error:
                return failed(f"{exchange.phase}: {describe(error)}")
            latency = clock() - started
            if self.tls_is_unconfirmed:
                await self.wait_for_acceptance(reader, writer, max(handshake, exchange.handshake), end)
            if (held := await _hold(reader, self.hold)) is not None:
                expected = f"expected at least {self.hold:g} s"
                return failed(f"peer closed the connection after {held:.1f} s; {expected}", latency)
            return answered(latency, self.degraded_above)
        finally:
            await close(writer)


async def _hold(reader: asyncio.StreamReader, seconds: float) -> float | None:
    """Return the seconds after which the peer has closed the connection; None if it has not."""
    if not seconds:  # a peer may close the connection after its answer
        return None
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            # Discard the data: all that matters is that the peer does not close the connection.
            while await reader.read(CHUNK):
                pass
            return time.monotonic() - started
    return None


class _Exchange:
    """Exchange of texts over one connection.

    Attributes:
        phase: the current step, for errors.
        handshake: seconds that the TLS handshake of a step has taken.
    """

    def __init__(
        self,
        probe: TcpProbe,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        secrets: list[str | None],
    ) -> None:
        self.phase = "connection"
        self.handshake = 0.0
        self._probe = probe
        self._reader = reader
        self._writer = writer
        self._secrets = secrets
        self._hidden = {f"secret {index}": text for index, text in enumerate(secrets) if text}
        self._left = MAX_RECEIVED_BYTES
        self._buffer = b""
        self._last_line = ""
        self._groups: tuple[str | None, ...] = ()
        self._skips_line = False
        self._ended = False
        self._expects = False

    @property
    def progress(self) -> str:
        """Progress of the current step, for the error of a timeout."""
        return self.received if self._expects else "not finished"

    @property
    def received(self) -> str:
        """The latest received line that is not empty, for errors."""
        lines = self._buffer.decode(errors="replace").strip().splitlines()
        line = lines[-1] if lines else self._last_line
        if line:
            return f"received {show(line, self._hidden)}"
        return "received nothing" if self._left == MAX_RECEIVED_BYTES else "received blank lines"

    async def run(self) -> None:
        """Run all steps.

        Raises:
            ExchangeError: a step failed; OSError: the connection failed.
        """
        for number, (step, secret) in enumerate(zip(self._probe.all_steps, self._secrets, strict=True), 1):
            self._expects = step.expect is not None
            prefix = f"step {number}, " if self._probe.steps is not None else ""
            if step.expect is not None:
                self.phase = f"{prefix}expected a line that matches {step.expect!r}"
                await self._expect(step.expect)
            elif step.starttls is not None:
                self.phase = f"{prefix}TLS handshake"
                await self._start_tls()
            else:
                self.phase = f"{prefix}sending"
                text = f"{secret}\r\n" if secret is not None else self._insert_groups(step.send or "")
                write(self._writer, text.encode())
                await self._writer.drain()
                self._skips_line = False  # what follows a prompt is a line of its own

    def _insert_groups(self, text: str) -> str:
        """Replace references to groups, which exist; one that took no part in the match is empty."""
        return _GROUP.sub(lambda found: ("", *self._groups)[int(found[1])] or "", text)

    async def _start_tls(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINE_GRACE):
                while self._skips_line:
                    await self._receive()
                    _, end, rest = self._buffer.partition(b"\n")
                    self._buffer, self._skips_line = rest, not end
        # A peer, or another host on the way, could otherwise answer in advance what follows over TLS.
        if self._buffer:
            raise ExchangeError(f"{self.received} before TLS began")
        started = time.monotonic()
        host = self._probe.server_name or self._probe.host
        try:
            await start_tls(self._reader, self._writer, self._probe.ssl_context(), host)
        except PlainTextError as error:
            self._buffer = error.received
            raise ExchangeError(f"{self.received} before TLS began") from None
        self.handshake = time.monotonic() - started
        self._last_line = ""
        self._skips_line = False

    async def _expect(self, pattern: str) -> None:
        """Read until a line matches a pattern."""
        expression = compile_pattern(pattern)
        while True:
            while (end := self._buffer.find(b"\n")) >= 0:
                line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
                if self._skips_line:
                    self._skips_line = False
                elif self._matches(expression, line):
                    return
            # A prompt has no line break.
            partial = self._buffer if not self._skips_line else b""
            if partial and self._matches(expression, partial, partial=True):
                self._buffer, self._skips_line = b"", True
                return
            await self._receive()

    def _matches(self, expression: Any, line: bytes, *, partial: bool = False) -> bool:
        text = line.decode(errors="replace").rstrip("\r")
        self._last_line = text.strip() or self._last_line
        if (found := expression.search(text)) is None:
            return False
        groups: tuple[str | None, ...] = found.groups()
        for more in _CONTINUATIONS if partial else ():
            continued = expression.search(text + more)
            if continued is None or continued.groups() != groups:
                return False
        self._groups = groups
        return True

    async def _receive(self) -> None:
        data = await self._reader.read(PIECE)
        await asyncio.sleep(0)  # the read itself does not suspend while bytes are buffered
        if not data and self._buffer and not self._ended:
            self._buffer += b"\n"  # the end of the connection is that of the line
            self._ended = True
            return
        if not data:
            raise ExchangeError(f"{self.received}, then the peer closed the connection")
        self._buffer += data
        self._left -= len(data)
        if self._left < 0 or len(self._buffer) > MAX_LINE_BYTES:
            raise ExchangeError(f"{self.received} among {MAX_RECEIVED_BYTES - self._left} bytes")
