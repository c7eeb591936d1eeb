"""The probe ``push``: heartbeats and their contents."""

import asyncio
import itertools

import pytest
from nats.aio.client import Client
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import ProbeContext
from tickertape.producers.monitor.probes.context import MAX_BODY_BYTES
from tickertape.producers.monitor.probes.push import PushProbe, parse_heartbeat
from tickertape.producers.monitor.subject_listener import SubjectListener

from tests.support.patience import PATIENCE
from tests.support.probing import probe_once
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.process.tasks import Tasks


@pytest.mark.parametrize(
    ("body", "outcome", "error"),
    [
        (b"", Outcome.OK, None),
        (b"beat", Outcome.OK, None),
        (b"[1]", Outcome.OK, None),
        (b'{"load": 3}', Outcome.OK, None),
        (b'{"status": "UP"}', Outcome.OK, None),
        (b'{"status": "HEALTHY"}', Outcome.OK, None),
        (b'{"status": "UNKNOWN"}', Outcome.UNKNOWN, "heartbeat has status UNKNOWN"),
        (b'{"status": "degraded", "msg": "slow disk"}', Outcome.DEGRADED,
         "heartbeat has status degraded: slow disk"),
        (b'{"status": "down", "reason": "no route\\nto broker"}', Outcome.FAILED,
         r"heartbeat has status down: no route\nto broker"),
        (b'{"status": "UNHEALTHY"}', Outcome.FAILED, "heartbeat has status UNHEALTHY"),
        (b'{"status": "who knows"}', Outcome.FAILED,
         "heartbeat has status 'who knows', expected up, degraded or down"),
        (b'{"status": 7}', Outcome.FAILED, "heartbeat has status '7', expected up, degraded or down"),
        (b'{"status": "down", "reason": "' + b"x" * 4_000 + b'"}', Outcome.FAILED,
         "heartbeat has status down: " + "x" * 60 + "…"),
        (b'{"status": "down", "reason": 5}', Outcome.FAILED, "heartbeat has status down"),
        (b'\xef\xbb\xbf{"status": "down"}', Outcome.FAILED, "heartbeat has status down"),
        (b'{"status": "down", "lag": NaN}', Outcome.FAILED,
         """heartbeat is not valid JSON: '{"status": "down", "lag": NaN}'"""),
        (b' {"status": "up"', Outcome.FAILED, """heartbeat is not valid JSON: '{"status": "up"'"""),
        (b'{"status": "up", "more": "' + b"x" * (MAX_BODY_BYTES - 26), Outcome.FAILED,
         f"heartbeat is larger than {MAX_BODY_BYTES} bytes"),
    ],
)  # fmt: skip
def test_what_a_heartbeat_reports(body: bytes, outcome: Outcome, error: str | None) -> None:
    """A heartbeat is up unless it says otherwise, with a short and printable reason."""
    result = parse_heartbeat(body)
    assert (result.outcome, result.error) == (outcome, error)


def test_the_latest_heartbeat_counts_until_the_deadline() -> None:
    """Without a heartbeat there is no result, then its status counts, and after the deadline its absence."""

    async def main() -> list[str]:
        context = ProbeContext()
        freshness, now = context.freshness, asyncio.get_running_loop().time()
        found = []

        async def judge() -> None:
            result = await probe_once(context, kind="push", subject="beat.a", within="60s")
            found.append("None" if result is None else f"{result.outcome} {result.error}")

        freshness.connect(now)
        await judge()
        freshness.listen("beat.a", now)
        await judge()
        for body in (b'{"status": "down", "reason": "x"}', b"", b'{"status": "degraded"}'):
            freshness.record_message("beat.a", now, body)
            await judge()
        freshness.record_message("beat.a", now - 90, b"")
        freshness.connect(now)
        freshness.disconnect()
        freshness.connect(now - 90)
        freshness.listen("beat.a", now - 90)
        await judge()
        return found

    assert [text for text, _ in itertools.groupby(asyncio.run(main()))] == [
        "None",
        "failed heartbeat has status down: x",
        "ok None",
        "degraded heartbeat has status degraded",
        "failed no message for 90 s; expected one every 60 s",
    ]


def test_heartbeats_on_nats(nats_server: NatsServer) -> None:
    """A monitor reads every heartbeat, so that a change counts as soon as it has arrived."""
    probe = PushProbe(kind="push", subject="beat.*", within="60s")
    context, reports = ProbeContext(), list[str]()

    async def main() -> None:
        client = await connection.connect(nats_server.url, name="monitor")
        try:
            async with Tasks() as tasks, asyncio.timeout(PATIENCE):
                listener = SubjectListener(context.freshness, reports.append)
                listener.update(client, Names(), dict([probe.listens_to]), tasks.start)
                for body, outcome in (
                    (b'{"status": "down"}', Outcome.FAILED),
                    (b"", Outcome.OK),
                    (b'{"status": "degraded"}', Outcome.DEGRADED),
                ):
                    while (
                        result := await probe.probe(1.0, context)
                    ) is None or result.outcome is not outcome:
                        await client.publish("beat.a", body)
                        await client.flush()
        finally:
            await connection.close(client)

    asyncio.run(main())
    assert reports == []


def test_the_last_of_several_heartbeats_counts(nats_server: NatsServer) -> None:
    """Of heartbeats that follow one another closely, none is missed, nor after those of another probe."""
    push = PushProbe(kind="push", subject="beat.*", within="60s")
    context = ProbeContext()

    async def until(client: Client, outcome: Outcome, *bodies: bytes) -> None:
        for number, body in enumerate(bodies):
            await client.publish(f"beat.{number % 2}", body)
        while (result := await push.probe(1.0, context)) is None or result.outcome is not outcome:
            await asyncio.sleep(0.01)

    async def main() -> None:
        client = await connection.connect(nats_server.url, name="monitor")
        try:
            async with Tasks() as tasks, asyncio.timeout(PATIENCE):
                listener = SubjectListener(context.freshness, lambda _: None)
                # First only for a freshness probe, for which one message in a while is enough.
                for age in (60.0, 0.0):
                    listener.update(client, Names(), {push.subject: age}, tasks.start)
                    await asyncio.sleep(0)
                    await client.flush()
                for _ in range(3):
                    await until(client, Outcome.FAILED, b"", b"", b'{"status": "down"}')
                    await until(client, Outcome.OK, b'{"status": "down"}', b"")
        finally:
            await connection.close(client)

    asyncio.run(main())
