"""The probe ``dns`` with a real name server, and with servers that answer wrongly."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from dnslib import DNSRecord
from pydantic import TypeAdapter, ValidationError
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import Probe

from tests.support.patience import PATIENCE
from tests.support.probing import TIMEOUT, outcome_and_error, probe_once, run_probe, serving, silent
from tests.support.servers.dns_server import Zone, dns_server
from tests.support.servers.nats_server import free_port


@pytest.fixture(scope="module")
def zone() -> Any:
    """Run the server over UDP and TCP on one port; yield its address."""
    with dns_server() as port:
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"query": "gw.test"}, None),
        ({"query": "GW.test."}, None),
        ({"query": "gw.test", "transport": "tcp"}, None),
        ({"query": "gw.test", "answer_matches": [r"^10\.0\.0\.1$", r"^10\.0\.0\.2$"]}, None),
        ({"query": "gw.test", "answer_matches": r"^10\.1\."},
         r"no answer matches '^10\\.1\\.': received 10.0.0."),
        ({"query": "gw.test", "answer_not_matches": r"\.2$"}, r"an answer matches '\\.2$': received 10.0.0."),
        ({"query": "gw.test", "type": "AAAA", "answer_matches": "^fd00::1$"}, None),
        ({"query": "gw.test", "type": "MX", "answer_matches": r"^10 mail\.gw\.test\.$"}, None),
        ({"query": "gw.test", "type": "TXT", "answer_matches": "v=spf1"}, None),
        ({"query": "www.gw.test", "answer_matches": r"^10\.0\.0\.1$"}, None),
        ({"query": "gw.test", "type": "SRV"}, "0 answers of type SRV, expected at least 1"),
        ({"query": "gw.test", "type": "SRV", "min_answers": 0}, None),
        ({"query": "none.test"}, "rcode is NXDOMAIN, expected NOERROR"),
        ({"query": "none.test", "rcode": "nxdomain"}, None),
        ({"query": "gw.test", "rcode": ["NXDOMAIN", "REFUSED"]},
         "rcode is NOERROR, expected NXDOMAIN or REFUSED"),
        ({"query": "refused.test"}, "rcode is REFUSED, expected NOERROR"),
        ({"query": "large.test", "type": "TXT", "min_answers": 200, "answer_matches": "x199"}, None),
    ],
)  # fmt: skip
def test_answers(zone: str, settings: dict[str, Any], error: str | None) -> None:
    """Codes and answers are as expected, or named; a truncated answer is asked for over TCP."""
    outcome, text = outcome_and_error(run_probe(kind="dns", address=zone, **settings))
    assert (outcome is Outcome.OK) is (error is None), text
    assert error is None or text.startswith(error)


class Answers(asyncio.DatagramProtocol):
    """Server that answers each datagram with others."""

    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self._answers = answers

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        for answer in self._answers(data):
            self._transport.sendto(answer, addr)


def reply(query: bytes) -> bytes:
    return bytes(Zone().resolve(DNSRecord.parse(query), None).pack())


QUESTION, PARENT, ROOT = b"\xc0\x0c", b"\xc0\x0f", b"\0"
"""Names: that of the question ``gw.test`` in a message, its parent, and the root."""

A_OF_PARENT = PARENT + b"\0\1\0\1" + bytes(4) + b"\0\4\x0a\0\0\1"
A_OF_ROOT = ROOT + A_OF_PARENT[2:]


def alias(target: bytes) -> bytes:
    """Return a record that makes the name of the question an alias."""
    return QUESTION + b"\0\5\0\1" + bytes(4) + len(target).to_bytes(2, "big") + target


def with_records(query: bytes, *records: bytes) -> bytes:
    question = query[12 : query.index(0, 12) + 5]
    return (
        query[:2] + b"\x80\0\0\1\0" + bytes([len(records) & 0xFF]) + bytes(4) + question + b"".join(records)
    )


def truncated(answer: bytes) -> bytes:
    """Return an answer that ends within a record, with the flag that says so."""
    return answer[:2] + bytes([answer[2] | 2]) + answer[3:-3]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (lambda query: [], "no response within 0.5 s"),
        (lambda query: [b"\0\0" + reply(query)[2:]] * 50, "no response within 0.5 s"),
        (lambda query: [b"\0\0" + reply(query)[2:]] * 20 + [reply(query)], None),
        (lambda query: [query[:2] + b"HTTP/1.1 400"], "response is not a DNS message"),
        (lambda query: [query[:2]], "response is not a DNS message"),
        (lambda query: [query], "no response within 0.5 s"),
        (lambda query: [query, reply(query.replace(b"\x02gw", b"\x02xx")), reply(query)], None),
        (lambda query: [reply(query.replace(b"\x02gw", b"\x02xx"))], "no response within 0.5 s"),
        (lambda query: [reply(query).replace(b"\x02gw", b"\x02GW")], None),
        (lambda query: [reply(query)[:-3]], "response is not a DNS message"),
        (lambda query: [query[:2] + b"\x80\x05" + bytes(8)], "rcode is REFUSED, expected NOERROR"),
        (lambda query: [query[:2] + b"\x80\0" + bytes(8)], "response is not a DNS message"),
        (lambda query: [query[:2] + b"\x80\1" + bytes(8) if query[11] else reply(query)], None),
        (lambda query: [query[:2] + b"\x80\1" + bytes(8)], "rcode is FORMERR, expected NOERROR"),
        (lambda query: [truncated(reply(query))], "response is truncated, and over TCP: connection refused"),
        (lambda query: [with_records(query, A_OF_ROOT)], "0 answers of type A, expected at least 1"),
        (lambda query: [with_records(query, alias(PARENT), A_OF_PARENT)], None),
        (lambda query: [with_records(query, A_OF_PARENT, alias(PARENT))], None),
        (lambda query: [with_records(query, alias(QUESTION), A_OF_PARENT)], "0 answers of type A"),
    ],
)
def test_wrong_answers(answers: Callable[[bytes], list[bytes]], error: str | None) -> None:
    """Garbage and answers to others are failures, and neither they nor the query are taken for the answer."""

    async def main() -> tuple[Outcome, str]:
        # Free ports are below those that the system chooses, on which another test may listen over TCP.
        port = free_port()
        with socket.socket() as refusing:
            refusing.bind(("127.0.0.1", port))
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Answers(answers), local_addr=("127.0.0.1", port)
            )
            try:
                seconds = TIMEOUT if error is not None and error.startswith("no response") else PATIENCE
                address = f"127.0.0.1:{port}"
                result = await probe_once(patience=seconds, kind="dns", address=address, query="gw.test")
                return outcome_and_error(result)
            finally:
                transport.close()

    outcome, text = asyncio.run(main())
    assert (outcome is Outcome.OK) is (error is None), text
    assert error is None or text.startswith(error)


def test_other_probes_run_while_a_large_answer_is_parsed() -> None:
    """The event loop turns while thousands of records are parsed, and keeps none of them in an error."""
    records = [QUESTION + A_OF_PARENT[2:-2] + number.to_bytes(2, "big") for number in range(4_000)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        wire = with_records(query, *records)
        wire = wire[:6] + len(records).to_bytes(2, "big") + wire[8:]
        writer.write(len(wire).to_bytes(2, "big") + wire)
        await silent(reader, writer)

    async def main() -> tuple[int, str]:
        turns = 0
        async with serving(answer) as port:
            settings = {"query": "gw.test", "transport": "tcp", "answer_not_matches": "^11"}
            probe: dict[str, Any] = {"kind": "dns", "address": f"127.0.0.1:{port}", **settings}
            probing = asyncio.create_task(probe_once(**probe))
            async with asyncio.timeout(PATIENCE):
                while not probing.done():
                    turns += 1
                    await asyncio.sleep(0)
            return turns, outcome_and_error(await probing)[1]

    turns, error = asyncio.run(main())
    assert error == "None"
    assert turns > 20


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_closed_port(transport: str) -> None:
    """A server that does not run is reported at the first packet."""
    address = f"127.0.0.1:{free_port()}"
    result = run_probe(kind="dns", address=address, query="a.test", transport=transport)
    assert outcome_and_error(result) == (Outcome.FAILED, "connection refused")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"query": "a..b"}, "is not a name in DNS"),
        ({"query": "a", "type": "AAAAA"}, "is not a type of records"),
        ({"query": "a", "rcode": "NOPE"}, "is not a code of DNS"),
        ({"query": "a", "rcode": "NXDOMAIN", "answer_matches": "x"}, "needs the code NOERROR"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], error: str) -> None:
    """Settings that cannot work are rejected."""
    with pytest.raises(ValidationError, match=error):
        TypeAdapter(Probe).validate_python({"kind": "dns", "address": "127.0.0.1:53", **settings})
