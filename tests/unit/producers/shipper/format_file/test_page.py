"""The example of a format file in docs/log-formats.md."""

from pathlib import Path

from tickertape.producers.shipper.format_file.loader import load_formats, select_formats
from tickertape.producers.shipper.parsing.own_formats.own_format import FormatTable
from tickertape.producers.shipper.parsing.own_formats.times import NAMES
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings

from tests.support.documents.markdown import blocks
from tests.support.paths import ROOT

PAGE = "docs/log-formats.md"


def test_the_example_is_read_as_the_page_says(tmp_path: Path) -> None:
    """The format of the page reads the lines of the page into the events that it describes."""
    text = {block.language: block.text for block in blocks(PAGE)}
    path = tmp_path / "formats.toml"
    path.write_text(text["toml"])
    formats = load_formats(path)
    assert not select_formats(formats, "/var/log/other.log")
    formats = select_formats(formats, "/var/log/trader-1.log")
    parser = Parser(ParseSettings(own_formats=formats), "file", ParserCounts())
    lines = text["text"].encode().splitlines()
    events = [*parser.feed(lines, [*range(len(lines))], 1.8e9), *parser.flush(1.8e9)]
    assert [event.level for event in events] == ["ERROR", "INFO"]
    assert events[0].message == "order 81 rejected\nReason: insufficient margin"
    page = (ROOT / PAGE).read_text()
    for value in (
        events[0].timestamp,
        events[0].source,
        f"`metadata.session` {events[0].metadata['session']}",
    ):
        assert value in page


def test_the_page_lists_every_key() -> None:
    """The table has the keys and the names of times that the program knows."""
    page = (ROOT / PAGE).read_text().partition("## Own formats")[2]
    assert [name for name in (*FormatTable.model_fields, *NAMES) if f"`{name}`" not in page] == []
