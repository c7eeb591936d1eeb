"""Silences: messages in the stream WATCHDOG with which operators suppress the alerts of a gateway."""

from typing import Final

import orjson
from tickertape.contracts.events import format_time
from tickertape.contracts.subjects import escape

from tickertape.text import is_printable

MAX_SILENCE_TEXT: Final = 500
"""Maximum characters of a reason, and of a user name."""


def silence_subject(gateway_type: str, gateway_id: str) -> str:
    """Return the subject of a gateway's silence, without the deployment's prefix."""
    return f"watchdog.silenced.{escape(gateway_type)}.{escape(gateway_id)}"


def find_reason_error(reason: str) -> str | None:
    """Return why a text cannot be the reason of a silence, and what to do; None if it can.

    Pages, alerts and terminals show it, so it must not contain line breaks, control codes or invisible
    characters.
    """
    if len(reason) > MAX_SILENCE_TEXT:
        return f"reason has {len(reason)} characters; use at most {MAX_SILENCE_TEXT}"
    if not is_printable(reason):
        character = next(one for one in reason if not is_printable(one))
        return f"reason contains {character!a}; use printable characters on one line"
    return None


def encode_silence(until: float, reason: str, by: str) -> bytes:
    """Return a silence as JSON.

    Args:
        until: end of the silence, UNIX seconds; a time in the past ends it.
        reason: reason that the operator gave.
        by: name of the operator.
    """
    return orjson.dumps({"until": format_time(until), "reason": reason, "by": by})
