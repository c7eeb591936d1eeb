"""The trace context of events: W3C's form, and where it comes from."""

import sys
from types import SimpleNamespace

import pytest
from tickertape.producers.sdk import trace_context as trace

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("value", [GOOD, GOOD.replace("00-", "cc-", 1), f"cc{GOOD[2:]}-later"])
def test_what_w3c_allows_is_valid(value: str) -> None:
    """Also versions that are not known yet."""
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
def test_what_w3c_forbids_is_not(value: str | None) -> None:
    """Zeros, capitals, the version ff, and anything behind version 00's flags."""
    assert not trace.is_valid(value)


def test_an_events_own_header_goes_first() -> None:
    """The provider is asked when there is none; what is no context is left out."""
    other = GOOD.replace("0af7", "1af7")
    assert trace.with_traceparent(None, None) is None
    assert trace.with_traceparent(None, lambda: GOOD) == {"traceparent": GOOD}
    assert trace.with_traceparent({"a": "b"}, lambda: None) == {"a": "b"}
    assert trace.with_traceparent({"TraceParent": other}, lambda: GOOD) == {"traceparent": other}
    assert trace.with_traceparent({"traceparent": "nonsense"}, lambda: GOOD) == {}


def test_opentelemetry_is_asked_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its current span gives the header; without it there is no provider."""
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
