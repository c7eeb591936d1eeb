"""Checkpoints that other programs may have written."""

import json
from typing import Any

import pytest
from tickertape.producers.shipper.position import HEAD_BYTES, MAX_OFFSET, unread_position
from tickertape.producers.shipper.sinks.sink import VERSION, Checkpoint, decode

GOOD = json.loads(Checkpoint("/a.log", (unread_position((1, 2), "/a.log"),)).encode("web1"))
CHANGES: list[dict[str, Any]] = [
    {"version": VERSION + 1},
    {"count": float("inf")},
    {"count": float("nan")},
    {"time": 10**400},
    {"time": None},
    {"suppressed": {"info": float("inf")}},
    {"suppressed": [1]},
    {"files": [{}]},
    {"files": 7},
    {"files": [{**GOOD["files"][0], "head_bytes": HEAD_BYTES + 1}]},
    {"files": [{**GOOD["files"][0], "offset": MAX_OFFSET + 1}]},
    {"path": 7},
]


def test_a_checkpoint_is_decoded() -> None:
    """A checkpoint is decoded as it was encoded."""
    assert decode(json.dumps(GOOD).encode()).path == "/a.log"


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"null",
        b'"text"',
        b"\xff",
        b"{}",
        *(json.dumps({**GOOD, **change}).encode() for change in CHANGES),
    ],
)
def test_anything_else_is_an_error(data: Any) -> None:
    """Whatever else a message contains, it is an error that loading expects."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)
