"""``tickertape streams``: records and events that other programs stored."""

import orjson
import pytest
from hypothesis import given

from tests.support.json_values import VALUES
from tests.support.programs.relay_process import expect_rejection
from tickertape.cli.streams import _one_line


@given(VALUES)
def test_a_record_is_one_line(value: object) -> None:
    """Every JSON value is printed unchanged, in one line."""
    text = _one_line(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    assert orjson.loads(text) == value
    assert b"\n" not in text


def test_what_cannot_be_printed_as_json_is_reported() -> None:
    """Anything else is printed as unreadable, also what only the parser accepts."""
    deep = b"[" * 500 + b"]" * 500
    for data in (b"", b"\xff\n", b"[1", deep):
        assert orjson.loads(_one_line(data)) == {"unreadable": data.decode(errors="replace")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["purge"], "purge requires the states"),
        (["show", "--states", "system.health.>"], "purge requires the states"),
        (["purge", "--states", "log.error.>"], "is no pattern of states"),
        (["purge", "--states", ">"], "is no pattern of states"),
        (["purge", "--states", "system.health.>.x"], "is no pattern of states"),
        (["purge", "--states", "gateway.recovery.>"], "is no pattern of states"),
    ],
)
def test_only_states_are_purged(arguments: list[str], message: str) -> None:
    """A purge needs a pattern of states; other events, of which a stream has the only copy, are kept."""
    done = expect_rejection("streams", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
