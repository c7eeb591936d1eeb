"""Requests of OpenTelemetry, made by hand, and a sender that retries."""

import asyncio
import struct
from typing import Any, Final

import orjson

from tickertape.net.http_client import Response, fetch

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"


def varint(number: int) -> bytes:
    """Encode a number."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def sized(number: int, data: bytes) -> bytes:
    """Encode a field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def any_value(value: Any) -> bytes:
    """Encode an ``AnyValue``."""
    if isinstance(value, str):
        return sized(1, value.encode())
    if isinstance(value, bool):
        return b"\x10" + varint(value)
    if isinstance(value, int):
        return b"\x18" + varint(value % 2**64)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    if isinstance(value, bytes):
        return sized(7, value)
    if isinstance(value, list):
        return sized(5, b"".join(sized(1, any_value(each)) for each in value))
    if isinstance(value, dict):
        return sized(6, attributes(1, value))
    return b""


def attributes(number: int, pairs: dict[str, Any]) -> bytes:
    """Encode attributes as a field that repeats."""
    return b"".join(
        sized(number, sized(1, key.encode()) + sized(2, any_value(value))) for key, value in pairs.items()
    )


def record(body: Any, severity: int = 9, time: int = 1772447445123000000, **values: Any) -> bytes:
    """Encode a log record; further values are attributes."""
    return (
        b"\x09" + struct.pack("<Q", time) + b"\x10" + varint(severity) + sized(5, any_value(body))
        + attributes(6, values) + sized(9, bytes(range(16))) + sized(10, bytes(range(8)))
    )  # fmt: skip


def request(records: list[bytes], service: str = "oms") -> bytes:
    """Encode a request of one service."""
    scope = sized(1, sized(1, b"gate")) + b"".join(sized(2, each) for each in records)
    return sized(1, sized(1, attributes(1, {"service.name": service})) + sized(2, scope))


def json_request(records: list[Any], service: str = "oms") -> bytes:
    """Encode a request of one service as JSON."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    scope = {"scope": {"name": "gate"}, "logRecords": records}
    return orjson.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


async def post(
    port: int, body: bytes, media: str = PROTOBUF, path: str = "/v1/logs", method: str = "POST", **fields: str
) -> Response:
    """Send a request; further fields are headers with ``_`` for ``-``."""
    headers = {"Content-Type": media} | {name.replace("_", "-"): value for name, value in fields.items()}
    return await fetch(
        f"http://127.0.0.1:{port}{path}", 60.0, 10_000, method=method, headers=headers, content=body
    )


async def post_until_stored(port: int, body: bytes) -> int:
    """Send a request until it is answered with 200, as exporters do; return the number of attempts."""
    attempts = 0
    while True:
        attempts += 1
        try:
            if (await post(port, body)).status == 200:
                return attempts
        except OSError:
            pass
        await asyncio.sleep(0.02)
