"""One line of a log as the shipper parses it."""

from tickertape.contracts.events import format_time
from tickertape.producers.shipper.parsing.levels import DEFAULT_LEVEL
from tickertape.producers.shipper.parsing.parsed_event import ParsedEvent
from tickertape.producers.shipper.parsing.parser import (
    DEFAULT_FIELDS,
    FieldNames,
    Parser,
    ParserCounts,
    ParseSettings,
)


def parse(
    line: bytes, *, source: str, now: float, fields: FieldNames = DEFAULT_FIELDS, truncated: bool = False
) -> ParsedEvent:
    """Parse one line, without its line break, as a separate event.

    Args:
        line: any bytes.
        source: source of a line that does not name one.
        now: UNIX seconds, for a line without a timestamp.
        fields: keys of a JSON line.
        truncated: the line was longer than its limit.
    """
    parser = Parser(ParseSettings(fields=fields, multiline="off"), source, ParserCounts())
    for event in parser.feed([line], [len(line) + 1], now, frozenset({0} if truncated else ())):
        return event
    return ParsedEvent(DEFAULT_LEVEL, "", source, format_time(now), {"truncated": True} if truncated else {})
