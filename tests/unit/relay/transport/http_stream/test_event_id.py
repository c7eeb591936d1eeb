"""Ids of Server-Sent Events."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.relay.transport.http_stream.event_id import UNKNOWN, format_event_id, parse_event_id


@pytest.mark.parametrize("snapshot", [False, True])
def test_an_id_is_read_as_it_was_written(snapshot: bool) -> None:
    """The position and whether its snapshot is missing survive."""
    cursor = Cursor("abc", 7, 123)
    assert parse_event_id(format_event_id(str(cursor), snapshot=snapshot)) == (cursor, snapshot)


@pytest.mark.parametrize(
    "text", ["", "42", "~snapshot", "abc-7~", "abc-7~snapshot~snapshot", "x\0", "é", "-1-1"]
)
def test_another_id_is_an_unknown_position(text: str) -> None:
    """An id of another server is no error, since a browser would give up."""
    assert parse_event_id(text) == (UNKNOWN, False)
