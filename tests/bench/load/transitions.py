"""Transitions of gateways over a time, as their monitors publish them, in the order of their timestamps."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tickertape.contracts.events import GatewayStatusChange, Status, format_time

from tests.bench.load.publisher import PublisherConnection

_SLICE = 250
_WINDOW = 4
_ERRORS = (
    "connection refused",
    "connection timed out after 2 s",
    "HTTP status 503, expected 200",
    "the certificate expires within 14 days",
)


def transitions(gateways: int, count: int, seconds: float, end: float) -> Iterator[tuple[str, bytes]]:
    """Yield subject and payload of each event: in rotation, the gateways fail and return.

    Args:
        gateways: number of gateways.
        count: number of events.
        seconds: time between the first and the last event.
        end: time of the last event, UNIX seconds.
    """
    chance = random.Random(20_250_624)
    for number in range(count):
        gateway, turn = number % gateways, number // gateways
        time = format_time(end - seconds * (1 - number / count))
        before, after = (Status.HEALTHY, Status.UNHEALTHY) if turn % 2 else (Status.UNHEALTHY, Status.HEALTHY)
        if turn == 0:
            before = Status.UNKNOWN
        metadata: dict[str, Any] = {
            "monitor": "bench", "since": time, "labels": {"desk": "futures"}, "probes": {"tcp": after},
        }  # fmt: skip
        if after is Status.UNHEALTHY:
            metadata |= {"probe": "tcp", "error": chance.choice(_ERRORS)}
        else:
            metadata["latency_ms"] = chance.randrange(1, 999) / 10
        event = GatewayStatusChange(
            timestamp=time,
            gateway_id=f"g{gateway}",
            gateway_type="bench",
            previous_status=before,
            current_status=after,
            metadata=metadata | {"vote_sequence": number + 1},
        )
        yield event.subject, event.encode()


def store(connection: PublisherConnection, events: Iterator[tuple[str, bytes]], after: int) -> None:
    """Publish events with the headers of a monitor as fast as the stream stores them.

    Args:
        connection: connection to nats-server, on which nothing else is published.
        events: subject and payload of each.
        after: last sequence of the stream.
    """
    last: dict[str, int] = {}
    sequence, sent = after, connection.acknowledged
    while batch := list(islice(events, _SLICE)):
        for subject, payload in batch:
            sequence += 1
            head = (
                f"NATS/1.0\r\nNats-Msg-Id: {sequence:024x}\r\n"
                f"Nats-Expected-Last-Subject-Sequence: {last.get(subject, 0)}\r\n\r\n"
            ).encode()
            last[subject] = sequence
            size = len(head) + len(payload)
            connection.send(
                b"HPUB %b _bench.ack %d %d\r\n%b%b\r\n" % (subject.encode(), len(head), size, head, payload)
            )
        sent += len(batch)
        while sent - connection.acknowledged >= _SLICE * _WINDOW:
            connection.read()
    while connection.acknowledged < sent:
        connection.read()
