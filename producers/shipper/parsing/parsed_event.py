"""Parsed event, and its encoding.

Invariant: every encoded event is valid and fits into a message, at worst with a shortened message.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson
from tickertape.contracts import strict_json
from tickertape.contracts.events import MAX_EVENT_BYTES, MAX_EVENT_DEPTH, SystemLog
from tickertape.producers.shipper.parsing.formats.fields import Fields
from tickertape.producers.shipper.parsing.levels import DEFAULT_LEVEL

_SHORT_MESSAGE: Final = 32 * 1024
"""Characters of a message that fit into an event, however they are encoded."""


@dataclass(slots=True)
class ParsedEvent:
    """Event that is ready to be published.

    Attributes:
        timestamp: RFC 3339 in UTC.
        end: offset in the file after the last line of the event.
        may_end_batch: whether this offset separates the event from later ones; see ``container_lines``.
    """

    level: str
    message: str
    source: str
    timestamp: str
    metadata: dict[str, Any] = field(default_factory=dict)
    end: int = 0
    may_end_batch: bool = True

    @property
    def subject(self) -> str:
        """Subject of the event, without the deployment's prefix."""
        return _subject(self.level, self.source)

    def encode(self) -> bytes:
        """Encode the event as a message payload, shortened if it is too large or too deep."""
        metadata = self.metadata
        try:
            payload = self._encode_body(self.message, metadata)
        except orjson.JSONEncodeError:
            return self._encode_short()
        if len(payload) > MAX_EVENT_BYTES:
            return self._encode_short()
        # Few values have brackets, and more of them than the limit.
        if metadata and payload.count(b"{") > 2 and strict_json.is_deeper(payload, MAX_EVENT_DEPTH):
            return self._encode_short()
        return payload

    def _encode_body(self, message: str, metadata: dict[str, Any]) -> bytes:
        return orjson.dumps(
            {
                "event_type": "system_log",
                "timestamp": self.timestamp,
                "level": self.level,
                "message": message,
                "source": self.source,
                "metadata": metadata,
            }
        )

    def _encode_short(self) -> bytes:
        return self._encode_body(self.message[:_SHORT_MESSAGE], {"truncated": True})


def build_group(records: list[Fields], source: str, now_text: str, end: int) -> list[ParsedEvent]:
    """Build the events of a line with several records.

    They are committed together, since no position separates them. As each has an offset of its own within the
    line, so has its message id, which is the same after a restart.

    Args:
        records: fields of each record.
        source: source of records that do not name one.
        now_text: time of records without one.
        end: offset in the file after the line.
    """
    last = len(records) - 1
    return [
        ParsedEvent(
            each[0] or DEFAULT_LEVEL,
            each[1],
            each[2] or source,
            each[3] or now_text,
            each[4],
            end - last + index,
            may_end_batch=index == last,
        )
        for index, each in enumerate(records)
    ]


@lru_cache(maxsize=4096)
def _subject(level: str, source: str) -> str:
    return SystemLog.subject_of(level=level, source=source)
