"""Target: conditions of clients, for events of producers."""

from typing import Final

import orjson
from tickertape.contracts.messages import MAX_WHERE_BYTES
from tickertape.relay.core.where.condition import Condition
from tickertape.relay.core.where.syntax import MAX_DEPTH, Node, parse
from tickertape.relay.core.where.tokens import WhereError
from tickertape.relay.core.where.values import ERROR, EventView

from tests.fuzz.targets.texts import check_text

_EVENT: Final = {
    "event_type": "system_log", "timestamp": "2025-06-24T10:30:45.123Z", "level": "ERROR", "source": "risk",
    "message": "margin call for \u00e9 \U0001f600", "n": 7, "d": 2.5, "t": True, "nil": None, "big": 1 << 63,
    "list": [1, 2.0, "a", None, [1]], "metadata": {"account": 7, "order": {"id": "a-1"}, "x y": ""},
}  # fmt: skip


class _Event:
    """Event in memory."""

    def __init__(self, fields: object) -> None:
        self.encoded = orjson.dumps({"subject": "log.error.risk", "seq": 1, "event": fields})
        self.state = False
        self.verdicts = 0


def condition(data: bytes) -> None:
    """Check that a condition has one result for an event, and agrees with those that contain it.

    The text before the first zero byte is the condition; what follows is the event, if it is a JSON object.
    """
    raw, _, payload = data.partition(b"\0")
    source = raw.decode("utf-8", "surrogateescape")
    compiled = _compile(source)
    if isinstance(compiled, WhereError):
        check_text(str(compiled))
        assert 1 <= compiled.position <= min(len(source), MAX_WHERE_BYTES) + 1
        return
    assert len(source.encode("utf-8", "surrogateescape")) <= MAX_WHERE_BYTES
    tree = parse(source)
    assert _height(tree) == tree.depth <= MAX_DEPTH
    event = _Event(_fields(payload))
    value = compiled._evaluate(EventView(orjson.loads(event.encoded)["event"]))
    assert value is ERROR or _is_value(value)
    compiled.keep_results(3)
    matched = compiled.passes(event)
    assert matched is (value is True)
    assert event.verdicts.bit_count() == 1 + matched
    event.encoded = b"not parsed again"
    assert compiled.passes(event) is matched
    # By the rules of logic with errors, in either order; a longer text may exceed the limits.
    for wrapped, expected in (
        (f"!({source}\n)", value is False),
        (f"({source}\n) || true", True),
        (f"event.missing || ({source}\n)", value is True),
        (f"({source}\n) && false", False),
        (f"({source}\n) ? false : true", value is False),
    ):
        outer = _compile(wrapped)
        if isinstance(outer, Condition):
            assert outer.passes(_Event(_fields(payload))) is expected, wrapped


def _compile(source: str) -> Condition | WhereError:
    try:
        return Condition(source)
    except WhereError as error:
        return error


def _fields(payload: bytes) -> object:
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return _EVENT
    return fields if isinstance(fields, dict) else _EVENT


def _height(node: Node) -> int:
    return 1 + max(map(_height, node.children), default=0)


def _is_value(value: object) -> bool:
    return value is None or type(value).__name__ in (
        "bool",
        "int",
        "float",
        "str",
        "list",
        "dict",
        "Timestamp",
    )
