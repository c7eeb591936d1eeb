"""Fields of lines that are XML elements: events of Windows, log4j's XMLLayout, and elements with a time.

Invariants:

1. The message is the text as it is: elements are not taken apart.
2. Only the start of an element decides, never the text in it.
"""

import re
from typing import Final

from tickertape.producers.shipper.parsing import levels
from tickertape.producers.shipper.parsing.formats.fields import Fields, legal_source
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

SEARCH_CHARACTERS: Final = 2000
"""Characters at the start of an element that are searched."""

_ELEMENT = re.compile(r"(?:- ?)?<([A-Za-z][\w:.-]{0,60})[\s>]", re.ASCII)
_ATTRIBUTES = re.compile(
    r"[ \t]([A-Za-z_][\w:.-]{0,40})=(?:\"([^\"<>\n]{0,200})\"|'([^'<>\n]{0,200})')", re.ASCII
)
_WINDOWS_LEVEL = re.compile(r"<Level>(\d)</Level>", re.ASCII)
_PROVIDER = re.compile(r"<Provider Name=[\"']([^\"'<>\n]{1,120})[\"']")
_CREATED = re.compile(r"<TimeCreated SystemTime=[\"']([^\"'<>\n]{10,40})[\"']")
_WINDOWS: Final = {"1": "CRITICAL", "2": "ERROR", "3": "WARN", "4": "INFO", "5": "DEBUG"}
_TIMES: Final = ("timestamp", "time", "ts", "date", "SystemTime")
_LEVELS: Final = ("level", "severity", "Level")
_SOURCES: Final = ("logger", "source", "component")


def read_element(text: str, timestamps: TimestampParser) -> Fields | None:
    """Read a text that is an XML element; return None for another, or if it has neither time nor level."""
    element = _ELEMENT.match(text)
    if element is None:
        return None
    if element[1] == "Event" and (created := _CREATED.search(text, 0, SEARCH_CHARACTERS)) is not None:
        number = _WINDOWS_LEVEL.search(text, 0, SEARCH_CHARACTERS)
        provider = _PROVIDER.search(text, 0, SEARCH_CHARACTERS)
        level = _WINDOWS.get(number[1]) if number is not None else None
        source = legal_source(provider[1]) if provider is not None else None
        return level, text, source, timestamps.parse_text(created[1]), {}
    stop = text.find(">", 0, SEARCH_CHARACTERS)
    attributes = {
        match[1]: match[2] or match[3] or ""
        for match in _ATTRIBUTES.finditer(text, element.end(1), stop if stop > 0 else SEARCH_CHARACTERS)
    }
    time = next((attributes[key] for key in _TIMES if key in attributes), "")
    name = next((attributes[key] for key in _LEVELS if key in attributes), "")
    timestamp, level = timestamps.parse_text(time), levels.level_of(name)
    if timestamp is None and level is None:
        return None
    source = next((legal_source(attributes[key]) for key in _SOURCES if key in attributes), None)
    return level, text, source, timestamp, {}
