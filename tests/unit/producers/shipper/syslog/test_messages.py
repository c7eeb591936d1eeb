"""Messages that are received over the network, which many programs send with half a header."""

import pytest
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("line", "level", "source", "message"),
    [
        (b"<14>printed by a handler", "INFO", "syslog", "printed by a handler"),
        (b"<11>ctp[77]: link lost", "ERROR", "ctp", "link lost"),
        (b"<12>Jun 15 15:06:40 gw1 no tag at all", "WARN", "syslog", "no tag at all"),
        (b"<8>2025-06-15T15:06:40.5Z gw1 risk[1]: halt", "CRITICAL", "risk", "halt"),
        (b"<15>", "DEBUG", "syslog", "<15>"),
        (b"<192>no priority", "INFO", "syslog", "<192>no priority"),
        (b"ERROR in the text", "ERROR", "syslog", "ERROR in the text"),
    ],
)
def test_the_priority_decides(line: bytes, level: str, source: str, message: str) -> None:
    """The level is that of the priority, whatever of the header is missing."""
    parser = Parser(ParseSettings(format="syslog", multiline="off"), "syslog", ParserCounts())
    (event,) = parser.feed([line], [len(line)], NOW)
    assert (event.level, event.source, event.message) == (level, source, message)
    assert event.timestamp[:19] == "2025-06-15T15:06:40"
