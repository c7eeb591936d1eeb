"""The decoder of protobuf, on its own: valid requests, and any bytes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.otlp.wire import MAX_DEPTH, RequestDecoder, TooManyFields, WireError

from tests.support.clients.otlp_requests import any_value, record, request, sized

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 10**17, 10**18 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)  # fmt: skip


def decode(data: bytes) -> list[object]:
    """Return the bodies of the records in a request."""
    return [each.fields.get("body") for _, each in RequestDecoder(data).records()]


@given(st.lists(VALUES))
def test_values_are_kept(values: list[object]) -> None:
    """Every value of a body is what was encoded."""
    assert decode(request([record(value) for value in values])) == values


def test_fields_of_a_record() -> None:
    """All fields have the names of OpenTelemetry's JSON; zero is absence."""
    [(number, found)] = RequestDecoder(request([record("x", 17, a=b"\1", b=float("inf"))])).records()
    assert (number, found.resource, found.scope) == (0, {"service.name": "oms"}, {"name": "gate"})
    assert found.fields == {
        "timeUnixNano": "1772447445123000000", "severityNumber": 17, "body": "x",
        "traceId": bytes(range(16)).hex(), "spanId": bytes(range(8)).hex(),
        "attributes": {"a": "AQ==", "b": "Infinity"},
    }  # fmt: skip
    [(_, empty)] = RequestDecoder(request([b"\x09" + bytes(8) + b"\x10\x00"])).records()
    assert empty.fields == {}


def test_large_integers_are_text() -> None:
    """An integer that few readers of JSON hold keeps its digits."""
    assert decode(request([record(2**63 - 1), record(-(2**63))])) == [str(2**63 - 1), str(-(2**63))]


def test_repeated_attributes_are_kept() -> None:
    """A key that is repeated makes a list, as in JSON."""
    pair = sized(6, sized(1, b"k") + sized(2, any_value(1)))
    [(_, found)] = RequestDecoder(request([pair * 2])).records()
    assert found.fields["attributes"] == [{"key": "k", "value": 1}] * 2


def test_unknown_fields_are_ignored() -> None:
    """A newer sender is understood."""
    unknown = sized(100, b"new") + b"\xf8\x07\x01" + b"\xfd\x07" + bytes(4)
    assert decode(request([unknown + record("x")]) + unknown) == ["x"]


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes are a request, or an error."""
    with contextlib.suppress(WireError):
        decode(data)


@given(st.data())
def test_damaged_requests(data: st.DataObject) -> None:
    """A request that was cut or changed anywhere is a request, or an error."""
    body = bytearray(request([record({"a": [1, "x"]}, b=2.5), record("y")]))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        decode(bytes(body[: data.draw(st.integers(0, len(body)))]))


@pytest.mark.parametrize("wrap", [lambda v: sized(5, sized(1, v)), lambda v: sized(6, sized(1, sized(2, v)))])
def test_depth_is_bounded(wrap: object) -> None:
    """A record with a deep value is rejected; the others are kept."""
    value = any_value("x")
    for _ in range(MAX_DEPTH - 1):
        value = wrap(value)  # type: ignore[operator]
    decoder = RequestDecoder(request([sized(5, value), sized(5, wrap(value))]))  # type: ignore[operator]
    assert [number for number, _ in decoder.records()] == [0]
    assert decoder.rejected == 1


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05abcd", b"\x0a" + b"\xff" * 10, b"\x00\x00", b"\x0b", b"\x09abc"]
)
def test_malformed_requests(data: bytes) -> None:
    """Lengths beyond the end, endless numbers, and types and fields that do not exist are errors."""
    with pytest.raises(WireError):
        decode(data)


def test_number_of_fields_is_bounded() -> None:
    """A request that would be millions of objects is not decoded."""
    with pytest.raises(TooManyFields):
        decode(b"\x10\x00" * 600_000)
