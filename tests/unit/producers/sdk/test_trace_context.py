"""The trace context of events: the W3C format, and the sources of the header."""

import sys
from types import SimpleNamespace

import pytest
from tickertape.producers.sdk import trace_context as trace

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("value", [GOOD, GOOD.replace("00-", "cc-", 1), f"cc{GOOD[2:]}-later"])
def test_valid_traceparents(value: str) -> None:
    """Values that W3C allows are valid, including future versions."""
    assert trace.is_valid(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        None,
        f"ff{GOOD[2:]}",
        f"{GOOD}-later",
        f"cc{GOOD[2:]}later",
        f"{GOOD}\r\nX: 1",
        GOOD.upper(),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_invalid_traceparents(value: str | None) -> None:
    """Zero ids, capitals, version ff, and text after the flags of version 00 are invalid."""
    assert not trace.is_valid(value)


def test_the_header_of_an_event_has_precedence() -> None:
    """A header of the event precedes the one of the provider, and invalid values are removed."""
    other = GOOD.replace("0af7", "1af7")
    assert trace.with_traceparent(None, None) is None
    assert trace.with_traceparent(None, lambda: GOOD) == {"traceparent": GOOD}
    assert trace.with_traceparent({"a": "b"}, lambda: None) == {"a": "b"}
    assert trace.with_traceparent({"TraceParent": other}, lambda: GOOD) == {"traceparent": other}
    assert trace.with_traceparent({"traceparent": "nonsense"}, lambda: GOOD) == {}


def test_opentelemetry_provides_the_header_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header is taken from OpenTelemetry's current span; without OpenTelemetry there is no provider."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    assert trace.opentelemetry_provider() is None
    context = SimpleNamespace(
        is_valid=True, trace_id=0x0AF7651916CD43DD8448EB211C80319C, span_id=0xB7AD6B7169203331, trace_flags=1
    )
    span = SimpleNamespace(get_span_context=lambda: context)
    module = SimpleNamespace(get_current_span=lambda: span)
    monkeypatch.setitem(sys.modules, "opentelemetry", SimpleNamespace(trace=module))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    ask = trace.opentelemetry_provider()
    assert ask is not None
    assert ask() == GOOD
    context.is_valid = False
    assert ask() is None
