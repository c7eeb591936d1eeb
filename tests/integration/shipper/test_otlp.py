"""Logs of OpenTelemetry over HTTP, against a real shipper and a real nats-server."""

import asyncio
import contextlib
import gzip
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.support.clients.otlp_requests import (
    JSON,
    json_request,
    post,
    post_until_stored,
    record,
    request,
    sized,
)
from tests.support.clients.shipped import listening
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer, free_port


class Shipper:
    """Shipper process that receives OpenTelemetry logs.

    Args:
        url, prefix: NATS and the deployment.
        folder: its state.
        options: further options.

    Attributes:
        port: port of the receiver.
    """

    def __init__(self, url: str, prefix: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._argv = [
            sys.executable, "-m", "tickertape", "ship", "--nats-url", url, "--subject-prefix", prefix,
            "--state-dir", str(folder / "state"), "--otlp", f"127.0.0.1:{self.port}", *options,
        ]  # fmt: skip

    async def start(self) -> None:
        """Start it; return when it receives."""
        self._process = await asyncio.create_subprocess_exec(*self._argv, stderr=asyncio.subprocess.PIPE)
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while b"receiving OpenTelemetry logs on" not in (line := await self._process.stderr.readline()):
                assert line, "it ended"
        self._reading = asyncio.create_task(self._process.stderr.read())

    async def end(self, *, kill: bool = False) -> str:
        """End it; return what it printed meanwhile."""
        if self._process.returncode is None:
            self._process.kill() if kill else self._process.terminate()
        output = await self._reading
        await self._process.wait()
        return output.decode()


@contextlib.asynccontextmanager
async def shipping(url: str, prefix: str, folder: Path, *options: str) -> AsyncIterator[Shipper]:
    """Run a shipper."""
    shipper = Shipper(url, prefix, folder, *options)
    await shipper.start()
    try:
        yield shipper
    finally:
        await shipper.end()


def test_requests_become_events(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """A record has the same event as protobuf, as JSON and with gzip, filtered and without secrets."""
    protobuf = request([
        record("venue rejected", 17, desk="rates", password="hunter2-Xy9"),
        record("below", 1),
        record({"order": 7, "ok": True}, 13),
    ])  # fmt: skip
    trace = {"traceId": bytes(range(16)).hex(), "spanId": bytes(range(8)).hex()}
    json = json_request([
        {
            "timeUnixNano": "1772447445123000000", "severityNumber": 17, **trace,
            "body": {"stringValue": "venue rejected"},
            "attributes": [
                {"key": "desk", "value": {"stringValue": "rates"}},
                {"key": "password", "value": {"stringValue": "hunter2-Xy9"}},
            ],
        },
        "no record",
    ])  # fmt: skip

    async def main() -> None:
        async with (
            listening(nats_url, nats_prefix) as shipped,
            shipping(nats_url, nats_prefix, tmp_path, "--level", "INFO") as shipper,
        ):
            assert (await post(shipper.port, protobuf)).status == 200
            await shipped.read()
            # They are stored before the response.
            assert [(each["level"], each["message"]) for each in shipped.events] == [
                ("ERROR", "venue rejected"), ("WARN", '{"order":7,"ok":true}'),
            ]  # fmt: skip
            first = shipped.events[0]
            assert (first["source"], first["timestamp"]) == ("oms", "2026-03-02T10:30:45.123Z")
            assert first["metadata"] == {
                "resource": {"service.name": "oms"}, "scope": {"name": "gate"}, **trace,
                "attributes": {"desk": "rates", "password": "[redacted:password]"},
            }  # fmt: skip
            response = await post(shipper.port, gzip.compress(json), JSON, Content_Encoding="gzip")
            assert response.status == 200
            assert orjson.loads(response.body) == {
                "partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "a record is not an object"}
            }
            await shipped.read()
            assert shipped.events[2] == first
            # Sent again, also after a restart, they are stored once.
            await shipper.end(kill=True)
            await shipper.start()
            assert (await post(shipper.port, protobuf)).status == 200
            assert (await post(shipper.port, json, JSON)).status == 200
            await shipped.read()
            assert len(shipped.events) == 3

    asyncio.run(main())


def test_large_requests_are_stored_once(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """A request of several batches keeps its order, and is stored once however often it is sent."""
    texts = [f"order {number}" for number in range(1_000)]
    body = request([record(text) for text in texts])

    async def main() -> None:
        async with (
            listening(nats_url, nats_prefix) as shipped,
            shipping(nats_url, nats_prefix, tmp_path) as shipper,
        ):
            assert (await post(shipper.port, body)).status == 200
            await shipper.end(kill=True)
            await shipper.start()
            responses = await asyncio.gather(*(post(shipper.port, body) for _ in range(3)))
            assert [response.status for response in responses] == [200] * 3
            await shipped.read()
            assert shipped.messages == texts

    asyncio.run(main())


deep = b""
for _ in range(100):
    deep = sized(5, sized(1, deep))

BAD = {
    "not protobuf": (b"\xff\xff\xff", {}, 400),
    "a length beyond the end": (b"\x0a\x7fx", {}, 400),
    "half a gzip": (gzip.compress(request([record("x" * 1000)]))[:-20], {"Content_Encoding": "gzip"}, 400),
    "no gzip": (request([record("x")]), {"Content_Encoding": "gzip"}, 400),
    "a bomb": (gzip.compress(b"\0" * 50_000_000), {"Content_Encoding": "gzip"}, 413),
    "many fields": (b"\x50\x00" * 600_000, {}, 413),
    "a large resource in many records": (
        request([record("x")] * 20_000, "x" * 10_000), {}, 413,
    ),
    "too many bytes": (b"\0" * 9_000_000, {}, 413),
    "another type": (b"x", {"media": "text/plain"}, 415),
    "another encoding": (b"x", {"Content_Encoding": "br"}, 415),
    "another path": (b"x", {"path": "/v1/traces"}, 404),
    "another method": (b"", {"method": "GET"}, 405),
    "a browser": (b"{}", {"media": JSON, "Origin": "http://x.example"}, 403),
    "JSON that ends": (b'{"resourceLogs": [', {"media": JSON}, 400),
    "JSON without an object": (b"[]", {"media": JSON}, 400),
    "deep JSON": (b"[" * 100_000, {"media": JSON}, 400),
    "an empty request": (b"", {}, 200),
    "an empty object": (b"{}", {"media": JSON}, 200),
    "a deep value": (request([sized(5, deep)]), {}, 200),
}  # fmt: skip


def test_bad_requests(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Each gets its status, and the shipper receives as before."""

    async def main() -> None:
        async with (
            listening(nats_url, nats_prefix) as shipped,
            shipping(nats_url, nats_prefix, tmp_path) as shipper,
        ):
            found = {
                name: (await post(shipper.port, body, **fields)).status
                for name, (body, fields, _) in BAD.items()
            }
            assert found == {name: status for name, (_, _, status) in BAD.items()}
            response = await post(shipper.port, request([sized(5, deep), record("good")]))
            assert b"nested too deeply" in response.body
            invalid = record("good").replace(b"good", b"b\xffd!")
            assert (await post(shipper.port, request([invalid]))).status == 200
            await shipped.until(2)
            assert shipped.messages == ["good", "b\ufffdd!"]

    asyncio.run(main())


def test_kills_lose_and_repeat_nothing(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Senders that retry lose and repeat no record although the shipper is killed during their requests."""
    bodies = [
        request([record(f"{number}-{index}", time=10**18 + number) for index in range(100)])
        for number in range(60)
    ]

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            shipper = Shipper(nats_url, nats_prefix, tmp_path)
            await shipper.start()
            queue = list(bodies)

            async def send() -> None:
                while queue:
                    await post_until_stored(shipper.port, queue.pop())

            async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
                senders = [group.create_task(send()) for _ in range(4)]
                for left in (45, 30, 15):
                    while len(queue) > left:
                        await asyncio.sleep(0.001)
                    await shipper.end(kill=True)
                    await shipper.start()
                await asyncio.wait(senders)
            await shipped.read()
            await shipper.end()
            counts = Counter(shipped.messages)
            assert set(counts.values()) == {1}
            assert len(counts) == 6_000

    asyncio.run(main())


def test_unreachable_nats(tmp_path: Path) -> None:
    """Senders are asked to send again while NATS is unreachable, and lose and repeat nothing."""
    bodies = [request([record(f"{number}-{index}") for index in range(50)]) for number in range(3)]

    async def main(server: NatsServer) -> None:
        async with listening(server.url) as shipped, shipping(server.url, "", tmp_path) as shipper:
            assert (await post(shipper.port, bodies[0])).status == 200
            server.stop()
            response = await post(shipper.port, bodies[1])
            assert (response.status, response.headers["retry-after"]) == (503, "2")
            server.start()
            async with asyncio.timeout(PATIENCE):
                for body in bodies:
                    await post_until_stored(shipper.port, body)
            await shipped.until(150)
            assert set(Counter(shipped.messages).values()) == {1}

    with NatsServer(tmp_path / "nats") as server:
        asyncio.run(main(server))


def test_slow_and_many_connections(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Clients that send half a request do not keep others from sending."""

    async def main() -> None:
        async with listening(nats_url, nats_prefix), shipping(nats_url, nats_prefix, tmp_path) as shipper:
            opened = [await asyncio.open_connection("127.0.0.1", shipper.port) for _ in range(200)]
            for _, writer in opened:
                writer.write(b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
            assert (await post(shipper.port, request([record("good")]))).status == 200
            for _, writer in opened:
                writer.close()

    asyncio.run(main())


def test_real_exporter(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """What the SDK of OpenTelemetry exports is stored once, although the shipper is killed meanwhile."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            shipper = Shipper(nats_url, nats_prefix, tmp_path)
            await shipper.start()
            exporter = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.programs.otlp_exporter", str(shipper.port), "3000",
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert exporter.stdout is not None
            try:
                async with asyncio.timeout(2 * PATIENCE):
                    assert await exporter.stdout.readline() == b"half\n"
                    await shipper.end(kill=True)
                    await shipper.start()
                    assert await exporter.wait() == 0
            finally:
                if exporter.returncode is None:
                    exporter.kill()
                    await exporter.wait()
                await shipper.end()
            await shipped.read()
            assert Counter(shipped.messages) == Counter(f"order {number}" for number in range(3_000))
            first = next(event for event in shipped.events if event["message"] == "order 0")
            assert (first["level"], first["source"]) == ("WARN", "oms")
            metadata = first["metadata"]
            assert metadata["attributes"]["desk"] == "rates"
            assert metadata["resource"]["service.name"] == "oms"
            assert len(metadata["traceId"]) == 32
            assert len(metadata["spanId"]) == 16

    asyncio.run(main())
