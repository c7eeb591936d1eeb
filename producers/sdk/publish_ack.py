"""JetStream's answers to a published event, read into one of three meanings.

Invariants:

1. Every answer has a meaning; what cannot be read is a refusal that passes, so that the event is sent again.
2. 'Busy' and 'no responders' pass by themselves; every other error of JetStream is final.
"""

from typing import Final, NamedTuple

import orjson
from nats.aio.msg import Msg

_TOO_MANY: Final = 429
"""JetStream's HTTP-like code for too many requests: the stream cannot keep up."""

_NO_LEADER: Final = 503
_DUPLICATE_IN_PROCESS: Final = 10158
"""A resend met its first copy on its way through the cluster; the next try hears the outcome."""


class Ack(NamedTuple):
    """JetStream's word that an event is in the stream.

    Attributes:
        stream: name in NATS.
        seq: sequence in the stream.
        duplicate: True when the stream had an event of this ``msg_id`` already.
    """

    stream: str
    seq: int
    duplicate: bool


class TransientFailure(NamedTuple):
    """A refusal that passes by itself: the event is to be sent again.

    Attributes:
        message: what happened.
        hint: what to do when it does not pass.
        slower: True when the whole link is to go slower.
    """

    message: str
    hint: str = "look at the server's log and its load"
    slower: bool = False


class PermanentFailure(NamedTuple):
    """A refusal for good.

    Attributes:
        code: JetStream's ``err_code``.
        description: its words.
    """

    code: int
    description: str


def read(message: Msg) -> Ack | TransientFailure | PermanentFailure:
    """Read an answer.

    Args:
        message: what came to the reply subject of an event.
    """
    if message.headers and (status := message.headers.get("Status")):
        if status == "503":
            return TransientFailure(
                "no stream takes this subject", "create the streams with 'tickertape streams apply'"
            )
        return TransientFailure(f"NATS answered {status}", slower=status == "429")
    try:
        answer = orjson.loads(message.data)
        error = answer.get("error")
        if not error:
            return Ack(answer["stream"], answer["seq"], answer.get("duplicate", False))
        code, number, words = error.get("code"), error.get("err_code", 0), error.get("description", "")
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        return TransientFailure(f"no JetStream acknowledgement: {message.data[:60]!r}")
    if code in (_TOO_MANY, _NO_LEADER) or number == _DUPLICATE_IN_PROCESS:
        return TransientFailure(f"JetStream is busy: {words}", slower=code == _TOO_MANY)
    return PermanentFailure(number, words)
