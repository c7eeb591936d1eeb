"""FIX session layer, as far as a probe needs it: logon, test request, resend request, logout.

Invariants:

1. The sequence numbers of the peer are reset only by ``reset``.
2. A resend request is answered by a gap fill, since a probe sends administrative messages only.
3. Numbers of the peer's own messages are ignored: nothing that was missed is requested again.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tickertape.producers.monitor.probes.fix.messages import (
    FixError,
    MessageReader,
    PeerClosed,
    encode_message,
)
from tickertape.producers.monitor.probes.fix.sequences import Numbers

from tickertape.net.outgoing import write

MAX_MESSAGES: Final = 10_000
"""Messages read from the peer before the expected one counts as missing: after a logon, venues send their
definitions and reports.
"""

MAX_ANSWERS: Final = 100
"""Requests of the peer that are answered in a session, with a number for each."""

LOGOUT_GRACE: Final = 1.0
"""Seconds for the peer to answer the logout, in addition to the probe's timeout."""

_TEST_REQUEST_ID: Final = "tickertape"

_MAX_SEQUENCE: Final = 2**31 - 1
"""Sequence numbers are 32-bit integers in most engines."""

HEARTBEAT, TEST_REQUEST, RESEND_REQUEST, REJECT, SEQUENCE_RESET, LOGOUT, LOGON = (
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "A",
)

_TOO_LOW_STATUS: Final = "9"
"""SessionStatus (1409) of a logout for a sequence number that is too low."""

_TOO_LOW: Final = re.compile(r"seq.*\blow\b", re.IGNORECASE)
_EXPECTED: Final = re.compile(r"expect\w*\D{0,20}(\d{1,10})", re.IGNORECASE)


class SequenceTooLow(FixError):
    """Rejection of a logon because its sequence number has been used already.

    Attributes:
        sent: number of the logon.
        expected: number that the peer expects; None if it does not tell.
    """

    def __init__(self, text: str, sent: int, expected: int | None) -> None:
        super().__init__(text)
        self.sent = sent
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Identity:
    """Version and names of a session; the subs may be empty."""

    begin_string: str
    sender: str
    target: str
    sender_sub: str = ""
    target_sub: str = ""


class Session:
    """FIX session, from logon to logout."""

    def __init__(
        self, identity: Identity, numbers: Numbers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._identity = identity
        self._numbers = numbers
        self._reader = MessageReader(reader)
        self._answered = 0
        self._writer = writer

    async def log_on(self, fields: list[tuple[int, str]]) -> None:
        """Log on and wait for the reply to a test request; a peer that only accepts logons fails.

        Args:
            fields: body of the logon.

        Raises:
            SequenceTooLow: the peer expects a higher sequence number.
            FixError: the peer rejects the logon, or violates the protocol.
        """
        sent = self._numbers.next
        await self._send(LOGON, fields)
        try:
            reply = await self._receive(LOGON, sent)
        except PeerClosed as error:
            # An engine must not tell that it does not know a session.
            raise PeerClosed(f"{error} in response to the logon; check the comp ids") from None
        identity = self._identity
        found = (reply.get(49), reply.get(56))
        if found != (identity.target, identity.sender):
            expected = f"{identity.target!r} to {identity.sender!r}"
            raise FixError(f"response is from {found[0]!r} to {found[1]!r}; expected {expected}")
        await self._request_heartbeat()
        while (await self._receive(HEARTBEAT)).get(112) != _TEST_REQUEST_ID:
            pass

    async def log_out(self) -> None:
        """Log out and wait for the peer's logout, since a venue may count sessions that end without one.

        The probe has succeeded by then; a logout that fails or times out does not change that.
        """
        with contextlib.suppress(FixError, OSError, TimeoutError):
            async with asyncio.timeout(LOGOUT_GRACE):
                await self._send(LOGOUT, [])
                await self._receive(LOGOUT)

    async def _send(self, kind: str, fields: list[tuple[int, str]]) -> None:
        await self._write(kind, self._numbers.take(), fields)

    async def _write(self, kind: str, number: int, fields: list[tuple[int, str]]) -> None:
        identity = self._identity
        sent = sending_time(identity.begin_string)
        head = [(35, kind), (49, identity.sender), (56, identity.target), (34, str(number))]
        if identity.sender_sub:
            head.append((50, identity.sender_sub))
        if identity.target_sub:
            head.append((57, identity.target_sub))
        if kind == SEQUENCE_RESET:
            head += [(43, "Y"), (122, sent)]
        head.append((52, sent))
        write(self._writer, encode_message(identity.begin_string, head + fields))
        await self._writer.drain()

    async def _receive(self, expected: str, logon: int | None = None) -> dict[int, str]:
        """Read messages until the expected one; ``logon`` is the number of a logon that may be rejected."""
        for _ in range(MAX_MESSAGES):
            fields = await self._reader.read()
            kind = fields.get(35)
            if kind == expected:
                return fields
            if kind in (LOGOUT, REJECT):
                raise rejection(fields, logon)
            # A peer ends a session that does not answer its test requests.
            if kind in (TEST_REQUEST, RESEND_REQUEST):
                self._answered += 1
                if self._answered > MAX_ANSWERS:
                    raise FixError(f"peer sent more than {MAX_ANSWERS} requests")
            if kind == TEST_REQUEST:
                await self._send(HEARTBEAT, [(112, fields.get(112, ""))])
            elif kind == RESEND_REQUEST:
                await self._fill_gap(fields.get(7, ""))
                if expected == HEARTBEAT:
                    await self._request_heartbeat()  # the gap contains the request before
        raise FixError(f"expected message not among the first {MAX_MESSAGES}")

    async def _request_heartbeat(self) -> None:
        await self._send(TEST_REQUEST, [(112, _TEST_REQUEST_ID)])

    async def _fill_gap(self, begin: str) -> None:
        following = self._numbers.next
        if not (begin.isascii() and begin.isdigit() and 0 < int(begin) < following):
            raise FixError(f"peer requests messages from {begin!r}; the last one is {following - 1}")
        await self._write(SEQUENCE_RESET, int(begin), [(123, "Y"), (36, str(following))])


def sending_time(begin_string: str) -> str:
    """Return the current time; FIX has milliseconds since 4.2."""
    now = datetime.now(UTC)
    if begin_string in ("FIX.4.0", "FIX.4.1"):
        return now.strftime("%Y%m%d-%H:%M:%S")
    return now.strftime("%Y%m%d-%H:%M:%S.%f")[:-3]


def rejection(fields: dict[int, str], logon: int | None) -> FixError:
    """Return the error for a logout or reject.

    Args:
        fields: message of the peer.
        logon: number of the logon, if the message may be its response.
    """
    reason = fields.get(58, "")
    text = f"rejected by the peer: {reason or 'no reason given'}"
    # The standard requires no form, but engines write "MsgSeqNum too low, expecting 301 but received 1".
    if logon is None or not (fields.get(1409) == _TOO_LOW_STATUS or _TOO_LOW.search(reason)):
        return FixError(text)
    match = _EXPECTED.search(reason)
    expected = int(match[1]) if match is not None else None
    if expected is None or logon < expected < _MAX_SEQUENCE:
        return SequenceTooLow(text, logon, expected)
    return FixError(text)
