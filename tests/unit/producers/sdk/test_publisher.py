"""What a publisher rejects before it sends anything."""

import pytest
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.errors import InvalidEvent
from tickertape.producers.sdk.publisher import encoded


@pytest.mark.parametrize("value", ["\udcff", b"\xff", float, object(), {1: object()}])
def test_a_value_that_json_does_not_have_is_an_invalid_event(value: object) -> None:
    """The error is that of any other violation of the contract, as documented."""
    event = SystemLog(level="ERROR", message="m", source="s", metadata={"value": value})
    with pytest.raises(InvalidEvent, match="has a value that JSON does not have"):
        encoded(event)


def test_other_values_are_encoded() -> None:
    """Sets and paths have a form in JSON."""
    event = SystemLog(level="ERROR", message="m", source="s", metadata={"values": {1}})
    assert b'"metadata":{"values":[1]}' in encoded(event)
