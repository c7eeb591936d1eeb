"""Classification of JetStream's replies; the storage errors are those that a real server sent."""

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tickertape.producers.sdk.publish_ack import Ack, PermanentFailure, TransientFailure, parse_reply


def reply(code: int, err_code: int, description: str) -> Msg:
    """Build an error reply, which has the fields of an acknowledgement as well."""
    error = {"code": code, "err_code": err_code, "description": description}
    return Msg(Client(), data=orjson.dumps({"error": error, "stream": "EVENTS", "seq": 0}))


@pytest.mark.parametrize(
    ("code", "err_code", "description", "message", "hint"),
    [
        (400, 10002, "resource limits exceeded for account", "storage quota of the account", "max_file"),
        (503, 10023, "insufficient resources", "storage limit of nats-server", "max_file_store"),
        (500, 10028, "insufficient memory resources available", "memory limit", "max_memory_store"),
        (500, 10047, "insufficient storage resources available", "storage limit", "max_file_store"),
        (503, 10077, "maximum bytes exceeded", "the stream is full", "discard old"),
        (503, 10077, "maximum messages exceeded", "the stream is full", "discard old"),
        (503, 10077, "maximum messages per subject exceeded", "the stream is full", "discard old"),
        (503, 10077, "write 4.blk: no space left on device", "cannot write its store", "restart nats-server"),
    ],
)
def test_storage_errors_are_retried_and_named(
    code: int, err_code: int, description: str, message: str, hint: str
) -> None:
    """An event is not given up while storage is full, since that can be resolved before its deadline."""
    failure = parse_reply(reply(code, err_code, description))
    assert isinstance(failure, TransientFailure)
    assert message in failure.message
    assert f"({description}, code {err_code})" in failure.message
    assert hint in failure.hint
    assert not failure.slow_down


@pytest.mark.parametrize("err_code", [10054, 10070, 10071, 10164])
def test_other_errors_stay_permanent(err_code: int) -> None:
    """A resend cannot fix an event that is too large, or a condition that does not hold."""
    assert parse_reply(reply(400, err_code, "x")) == PermanentFailure(err_code, "x")


def test_an_acknowledgement_is_one() -> None:
    """A reply without an error is an acknowledgement."""
    assert parse_reply(Msg(Client(), data=b'{"stream": "EVENTS", "seq": 7}')) == Ack("EVENTS", 7, False)
