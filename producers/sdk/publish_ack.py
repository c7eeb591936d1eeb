"""JetStream's reply to a published event: an acknowledgement, a transient failure or a permanent one.

Invariants:

1. Every reply is classified; one that cannot be parsed is a transient failure, so that the event is resent.
2. 'Busy', 'no responders' and errors of the storage are transient, since each may be resolved before the
   event's deadline; every other JetStream error is permanent.
"""

from typing import Final, NamedTuple

import orjson
from nats.aio.msg import Msg

from tickertape.nats.storage.problems import NO_STREAM_HINT, storage_failure

_TOO_MANY: Final = 429
"""HTTP-like code for too many requests: the stream cannot keep up."""

_UNAVAILABLE: Final = 503
"""HTTP-like code: in a header, nothing receives messages on the subject; in a body, there is no leader."""

_DUPLICATE_IN_PROCESS: Final = 10158
"""``err_code`` of a resend whose first copy is still being replicated; the next attempt gets the outcome."""


class Ack(NamedTuple):
    """Acknowledgement that an event is stored in the stream.

    Attributes:
        stream: name in NATS.
        seq: sequence in the stream.
        duplicate: True if the stream already had an event with this ``msg_id``.
    """

    stream: str
    seq: int
    duplicate: bool


class TransientFailure(NamedTuple):
    """Failure after which the event is resent.

    Attributes:
        message: what happened.
        hint: what to do if it persists.
        slow_down: whether the publisher must send more slowly.
    """

    message: str
    hint: str = "check the server's log and its load"
    slow_down: bool = False


class PermanentFailure(NamedTuple):
    """Error that a resend cannot fix.

    Attributes:
        code: JetStream's ``err_code``.
        description: JetStream's description of the error.
    """

    code: int
    description: str


def parse_reply(message: Msg) -> Ack | TransientFailure | PermanentFailure:
    """Classify a reply.

    Args:
        message: message received on the reply subject of an event.
    """
    if message.headers and (status := message.headers.get("Status")):
        # No responders: nothing receives messages on this subject, which a stream would.
        if status == str(_UNAVAILABLE):
            return TransientFailure("no stream captures this subject", NO_STREAM_HINT)
        return TransientFailure(f"NATS replied with status {status}", slow_down=status == str(_TOO_MANY))
    try:
        reply = orjson.loads(message.data)
        error = reply.get("error")
        if not error:
            return Ack(reply["stream"], reply["seq"], reply.get("duplicate", False))
        status_code, error_code = error.get("code"), error.get("err_code", 0)
        description = error.get("description", "")
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        return TransientFailure(f"the reply is not a JetStream acknowledgement: {message.data[:60]!r}")
    if (failure := storage_failure(error_code, description)) is not None:
        return TransientFailure(*failure)
    if status_code in (_TOO_MANY, _UNAVAILABLE) or error_code == _DUPLICATE_IN_PROCESS:
        return TransientFailure(f"JetStream is busy: {description}", slow_down=status_code == _TOO_MANY)
    return PermanentFailure(error_code, description)
