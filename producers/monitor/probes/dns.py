"""Probe ``dns``: one query to a name server, over UDP and, if the answer is truncated, over TCP."""

import asyncio
import errno
import os
import socket
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.options.patterns import RegularExpressions, matches, shorten
from tickertape.producers.monitor.probes.result import answered, describe, failed
from tickertape.producers.monitor.probes.settings import AddressProbe

from tickertape.errors import TickertapeError
from tickertape.net.http_client import close
from tickertape.net.outgoing import open_connection, resolve, write
from tickertape.validation import checked_by

if TYPE_CHECKING:
    import dns.message

MAX_UDP_BYTES: Final = 64 * 1024
"""Maximum size of a datagram."""

MAX_ALIASES: Final = 32
"""Aliases between the name of the query and the answers."""

SMALL_BYTES: Final = 2 * 1024
"""Bytes of a message that is parsed without a thread."""

EDNS_BYTES: Final = 1232
"""Size of a datagram that this host accepts, which is not fragmented on the way (DNS flag day 2020)."""

_RESPONSE: Final = 0x80
_CLOSED: Final = "peer closed the connection without a response"
_TRUNCATED: Final = 0x02
"""Flags in the third byte of a message."""

HEADER_BYTES: Final = 12
"""Bytes before the question in a message."""

MAX_FOREIGN: Final = 100
"""Datagrams that do not answer the query before the answer counts as missing."""

MAX_SHOWN: Final = 3
"""Answers in an error."""


def _check_name(name: str) -> None:
    # Imported when a file has such a probe, because the package takes long to load.
    import dns.exception
    import dns.name

    try:
        dns.name.from_text(name)
    except (dns.exception.DNSException, ValueError):
        raise ValueError(f"{name!r} is not a name in DNS; use one such as www.example.com") from None


def _check_type(name: str) -> None:
    import dns.rdatatype

    try:
        dns.rdatatype.from_text(name)
    except (dns.rdatatype.UnknownRdatatype, ValueError):
        raise ValueError(f"{name!r} is not a type of records; use one such as A, AAAA, MX or TXT") from None


def _check_rcode(name: str) -> None:
    import dns.rcode

    try:
        dns.rcode.from_text(name)
    except (dns.rcode.UnknownRcode, ValueError):
        raise ValueError(f"{name!r} is not a code of DNS; use one such as NOERROR or NXDOMAIN") from None


class NoAnswer(TickertapeError):
    """Absence of an answer to the query."""


class DnsProbe(AddressProbe):
    """Query whose answer must have the given code and answers."""

    kind: Literal["dns"]
    query: Annotated[str, Field(min_length=1), checked_by(_check_name)]
    """Name to look up, without a search domain."""
    type: Annotated[str, checked_by(_check_type)] = "A"
    transport: Literal["udp", "tcp"] = "udp"
    rcode: Annotated[
        list[Annotated[str, checked_by(_check_rcode)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(min_length=1),
    ] = Field(default=["NOERROR"])
    """Expected code, or a list."""
    min_answers: Annotated[int, Field(ge=0, le=1000, strict=True)] = 1
    """Minimum number of records of the type in an answer with the code NOERROR."""
    answer_matches: RegularExpressions | None = None
    """Regular expressions that one of the answers, such as ``10 mx.example.com.``, must match each."""
    answer_not_matches: RegularExpressions | None = None
    """Regular expressions that no answer may match."""

    @property
    def name(self) -> str:
        return self.label if self.label is not None else f"dns {self.query} {self.type} {self.address}"

    @model_validator(mode="after")
    def _check_answers(self) -> "DnsProbe":
        if "NOERROR" not in [code.upper() for code in self.rcode] and self.answer_matches is not None:
            raise ValueError(
                "'answer_matches' needs the code NOERROR; add it to 'rcode', or remove one of them"
            )
        return self

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        import dns.exception
        import dns.rcode

        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        async with asyncio.timeout(time_limit):
            try:
                response, answers = await self._exchange()
            except dns.exception.DNSException as error:
                return failed(f"response is not a DNS message: {shorten(str(error), {})}")
            except NoAnswer as error:
                return failed(str(error))
            except EOFError:
                return failed(_CLOSED)
        latency = clock() - started
        code = dns.rcode.to_text(response.rcode())
        if code not in [expected.upper() for expected in self.rcode]:
            return failed(f"rcode is {code}, expected {' or '.join(self.rcode)}", latency)
        mismatch = self._find_mismatch(answers) if code == "NOERROR" else None
        return failed(mismatch, latency) if mismatch is not None else answered(latency, self.degraded_above)

    def _find_mismatch(self, answers: list[str]) -> str | None:
        shown = ", ".join(answers[:MAX_SHOWN]) + (", …" if len(answers) > MAX_SHOWN else "")
        received = f"received {shorten(shown, {})}" if answers else "received none"
        if len(answers) < self.min_answers:
            return f"{len(answers)} answers of type {self.type}, expected at least {self.min_answers}"
        for pattern in self.answer_matches or ():
            if not any(matches(pattern, answer) for answer in answers):
                return f"no answer matches {pattern!r}: {received}"
        for pattern in self.answer_not_matches or ():
            if any(matches(pattern, answer) for answer in answers):
                return f"an answer matches {pattern!r}: {received}"
        return None

    async def _exchange(self) -> tuple["dns.message.Message", list[str]]:
        """Send the query, and return the response and its answers of the type.

        Raises:
            DNSException, NoAnswer: the response is not valid; EOFError, OSError: the connection failed.
        """
        import dns.message
        import dns.rcode

        for edns in (True, False):
            version = 0 if edns else -1
            query = dns.message.make_query(self.query, self.type, use_edns=version, payload=EDNS_BYTES)
            wire = await self._ask(query)
            # In a thread if it is large, because a server can send thousands of records.
            if len(wire) > SMALL_BYTES:
                response, answers = await asyncio.to_thread(_parse, wire, query, self.type)
            else:
                response, answers = _parse(wire, query, self.type)
            # Servers without extensions (EDNS) reject the query with one of these codes.
            if response.rcode() not in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
                break
        return response, answers

    async def _ask(self, query: "dns.message.Message") -> bytes:
        if self.transport == "tcp":
            return await _ask_tcp(self.endpoint, query)
        wire = await _ask_udp(self.endpoint, query)
        # The flag counts before the message is parsed, because servers truncate it anywhere.
        if len(wire) < HEADER_BYTES or not wire[2] & _TRUNCATED:
            return wire
        try:
            return await _ask_tcp(self.endpoint, query)
        except (OSError, EOFError) as error:
            reason = _CLOSED if isinstance(error, EOFError) else describe(error)
            raise NoAnswer(f"response is truncated, and over TCP: {reason}") from None


def _parse(
    wire: bytes, query: "dns.message.Message", type_name: str
) -> tuple["dns.message.Message", list[str]]:
    """Parse a response, and return it with its answers of a type as printable text.

    Raises:
        DNSException, NoAnswer: the response is not valid.
    """
    import dns.message
    import dns.rdatatype

    response = dns.message.from_wire(wire, ignore_trailing=True)
    if not query.is_response(response):
        raise NoAnswer("response is not a DNS message that answers the query")
    wanted = dns.rdatatype.from_text(type_name)
    names, aliases = {query.question[0].name}, dns.rdatatype.CNAME
    for _ in range(MAX_ALIASES):
        found = {
            record.target
            for records in response.answer
            if records.rdtype == aliases and records.name in names
            for record in records
        }
        if found <= names:
            break
        names |= found
    return response, [
        record.to_text()
        for records in response.answer
        if wanted in (records.rdtype, dns.rdatatype.ANY) and records.name in names
        for record in records
    ]


async def _ask_udp(endpoint: tuple[str, int], query: "dns.message.Message") -> bytes:
    """Send a query in a datagram, and return the first datagram that answers it."""
    failure: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, address in await resolve(*endpoint):
        try:
            return await _ask_address(family, address, query)
        # An address without a route or a server fails immediately; the next one may have both.
        except OSError as error:
            failure = error
    raise failure


async def _ask_address(
    family: socket.AddressFamily, address: tuple[Any, ...], query: "dns.message.Message"
) -> bytes:
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[bytes | Exception] = asyncio.Queue(MAX_FOREIGN)
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(received), remote_addr=(address[0], address[1]), family=family
    )
    try:
        wire = query.to_wire()
        transport.sendto(wire)
        for _ in range(MAX_FOREIGN):
            item = await received.get()
            if isinstance(item, Exception):
                raise item
            # A datagram with another id may answer the query of an earlier probe from the same port. One with
            # another question, or without the flag of a response, may be forged.
            if item[:2] == wire[:2] and _can_answer(item, wire):
                return item
    finally:
        transport.abort()
    raise NoAnswer(f"none of {MAX_FOREIGN} datagrams answers the query")


def _can_answer(wire: bytes, query: bytes) -> bool:
    """Return whether a datagram is no query itself, and no response to another question."""
    if wire[4:6] != b"\0\1":
        return True  # an error without the question, or no message at all
    question = query[HEADER_BYTES : query.index(0, HEADER_BYTES) + 5]
    # Letters of the name may be in the other case.
    repeated = wire[HEADER_BYTES : HEADER_BYTES + len(question)]
    return bool(wire[2] & _RESPONSE) and repeated.lower() == question.lower()


class _Datagrams(asyncio.DatagramProtocol):
    """Received datagrams, up to a number."""

    def __init__(self, received: "asyncio.Queue[bytes | Exception]") -> None:
        self._received = received

    def _put(self, item: bytes | Exception) -> None:
        if not self._received.full():
            self._received.put_nowait(item)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._put(data)

    def error_received(self, exc: Exception) -> None:
        self._put(exc)


async def _ask_tcp(endpoint: tuple[str, int], query: "dns.message.Message") -> bytes:
    """Send a query over a connection, on which the length of a message comes before the message."""
    reader, writer = await open_connection(*endpoint, limit=MAX_UDP_BYTES)
    try:
        wire = query.to_wire()
        write(writer, len(wire).to_bytes(2, "big") + wire)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        await close(writer)
