"""Health events of a shipper that other programs published: every one is shown, or reported plainly."""

import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.status import print_health

from tests.support.json_values import VALUES
from tickertape.errors import OperatorError
from tickertape.process.terminal import Terminal

SUBJECT = "system.health.shipper.web1"
FILE = {"path": "/a.log", "encoding": "gb18030", "lag_bytes": 5, "lag_seconds": 1}

NAMES = (
    "by_file",
    "shipped",
    "suppressed",
    "rejected",
    "truncated_lines",
    "invalid_lines",
    "forbidden_files",
    "lost_files",
    "lost_bytes",
)
FILES = st.fixed_dictionaries({}, optional=dict.fromkeys(FILE, VALUES)) | st.just(FILE) | VALUES
CHECKS = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(NAMES, VALUES), "by_file": st.lists(FILES, max_size=2)}
)


def shown(checks: Any, **fields: Any) -> str:
    """Return the output for an event."""
    body = {
        "event_type": "system_health", "timestamp": "2026-01-01T00:00:00Z", "component": "shipper",
        "instance": "web1", "status": "HEALTHY", "checks": checks, **fields,
    }  # fmt: skip
    output = io.StringIO()
    print_health("web1", SUBJECT, orjson.dumps(body), Terminal(file=output, width=200))
    return output.getvalue()


@given(CHECKS | VALUES)
def test_every_event_is_shown_or_reported(checks: Any) -> None:
    """Whatever the checks of an event are, it is shown, or an error says that it is not one of a shipper."""
    try:
        text = shown(checks)
    except OperatorError as error:
        text = str(error)
    assert f"the last event on {SUBJECT} is not one of a shipper" in text or "shipper of web1" in text


@pytest.mark.parametrize(
    ("checks", "text"),
    [
        ({"by_file": [{**FILE, "lag_seconds": "1"}]}, "by_file.0.lag_seconds"),
        ({"by_file": [{**FILE, "lag_bytes": None}]}, "by_file.0.lag_bytes"),
        ({"by_file": [7]}, "by_file.0"),
        ({"by_file": {"a": 1}}, "by_file"),
        ({"by_file": [{}]}, "by_file.0.path"),
        ({"shipped": "many"}, "shipped"),
        ({"rejected": [1]}, "rejected"),
        ([1], "not one of a shipper"),
    ],
)
def test_wrong_types_are_named(checks: Any, text: str) -> None:
    """A field with a wrong type is named, in an event that the contract accepts."""
    with pytest.raises(OperatorError, match=text):
        shown(checks)


def test_an_event_that_violates_the_contract_is_named() -> None:
    """So is the rule of the contract that an event violates."""
    with pytest.raises(OperatorError, match="status"):
        shown({}, status="GREAT")


def test_an_event_of_a_shipper_is_shown() -> None:
    """An ordinary event is shown; counters that other versions add or lack do not matter."""
    text = shown({"by_file": [FILE], "shipped": 3, "suppressed": 1, "new": {}})
    assert "5 B       1.0 s  gb18030    /a.log" in text
    assert "3 events shipped, 1 suppressed" in text
