"""Sentences for what the YAML parser reports: its own words presuppose the specification of YAML.

The parser has no codes, so the beginnings of its texts are all there is to tell its errors apart. One that is
not known here has a general sentence; a text of the parser is never shown.
"""

import re
from typing import Final

import yaml

UNREADABLE_VALUE: Final = "tickertape: unreadable value"
"""Text of this package for a value that cannot be converted to the type that YAML sees in it."""

HALF_CHARACTER: Final = "tickertape: half a character"
"""Text of this package for an escape sequence that has only one half of a character."""

_HINTS: Final[tuple[tuple[str | tuple[str, ...], str, str], ...]] = (
    (
        UNREADABLE_VALUE,
        "has a value that is not what its form or its tag says",
        "put text in quotes, and shorten a number",
    ),
    (
        HALF_CHARACTER,
        "has an escape sequence for one half of a character",
        "write the character itself, or both halves",
    ),
    (
        "found character '\\t'",
        "has a tab in its indentation, which YAML does not allow",
        "replace each tab by spaces",
    ),
    (
        "found character",
        "has text that begins with a reserved character (one of @ ` %)",
        "put the text in quotes",
    ),
    (
        "mapping values are not allowed",
        "has a ':' where none can be",
        "align the line with its neighbors, and put text that contains ': ' in quotes",
    ),
    (
        "sequence entries are not allowed",
        "has a '-' where no list can begin",
        "put the list below its key, on lines of its own",
    ),
    (
        "mapping keys are not allowed",
        "has a '?' where no key can begin",
        "put text that begins with '?' in quotes",
    ),
    (
        "could not find expected ':'",
        "is neither 'key: value' nor '- item'",
        "add the ':' and a space after the key, or close the quote that is open before this line",
    ),
    ("found unexpected end of stream", "begins a quoted text that has no end", "add the closing quote"),
    (
        "found unexpected document separator",
        "begins a quoted text that has no end",
        "add the closing quote",
    ),
    (
        "found unknown escape character",
        "has a backslash that YAML does not know in double quotes",
        "write it as \\\\, or use single quotes",
    ),
    (
        "expected escape sequence",
        "has an incomplete escape sequence in double quotes",
        "write a backslash as \\\\, or use single quotes",
    ),
    ("expected ',' or ']'", "has a list that is not closed", "add the ']' or the missing ','"),
    ("expected ',' or '}'", "has a mapping that is not closed", "add the '}' or the missing ','"),
    (
        "expected <block end>, but found '-'",
        "has a '-' that is indented differently from the items before it",
        "align the items of a list",
    ),
    (
        ("expected <block end>, but found ']'", "expected <block end>, but found '}'"),
        "has a closing bracket that nothing opens",
        "remove it, or put the text in quotes",
    ),
    (
        ("expected <block end>, but found '<scalar>'", "expected <block end>, but found ','"),
        "has text after a value that is complete",
        "put the whole value in quotes, or remove the rest",
    ),
    (
        "expected <block end>",
        "is indented differently from the lines that it belongs to",
        "align the keys of a mapping, and close quotes and brackets before this line",
    ),
    (
        "expected the node content",
        "has a ',' or a bracket where a value is expected",
        "add the value, or remove the extra character",
    ),
    (
        "found undefined alias",
        "refers with '*' to an anchor that is not defined before it",
        "define the anchor with '&' above this line, or put text that begins with '*' in quotes",
    ),
    (
        "second occurrence",
        "defines an anchor with '&' a second time",
        "give each anchor its own name",
    ),
    (
        "but found another document",
        "begins a second document",
        "remove the line '---', or use one file for each monitor",
    ),
    (
        "expected '<document start>'",
        "has text after the end of the document",
        "remove the line '...', or align this line with the first key of the file",
    ),
    (
        "could not determine a constructor",
        "has a tag with '!', which is not supported",
        "remove the tag, or put text that begins with '!' in quotes",
    ),
    (
        "found incompatible YAML document",
        "has a line '%YAML' with a version that is not supported",
        "remove that line",
    ),
    (
        "found undefined tag handle",
        "has a tag with '!', which is not supported",
        "remove the tag, or put text that begins with '!' in quotes",
    ),
    (
        "found unhashable key",
        "has a list or a mapping as a key",
        "use text as the key; put text that begins with '{' or '[' in quotes",
    ),
    (
        "expected a mapping or list of mappings for merging",
        "merges ('<<') something that is not a mapping",
        "refer with '*' to the anchor of a mapping",
    ),
    (
        "expected chomping or indentation",
        "has text on the line of a '|' or '>'",
        "begin the text on the next line, or put it in quotes",
    ),
    (
        "expected indentation indicator",
        "has text on the line of a '|' or '>'",
        "begin the text on the next line, or put it in quotes",
    ),
    (
        "expected alphabetic or numeric character",
        "has a '&', '*' or '%' without a name",
        "put text that begins with '&', '*' or '%' in quotes",
    ),
    (
        "expected a comment or a line break",
        "has text after a '|' or '>', or after a directive",
        "begin the text on the next line, or put it in quotes",
    ),
)
"""Beginnings of texts, with what is wrong and what to do."""

_GENERAL: Final = (
    "does not fit the lines around it",
    "compare its indentation, quotes, brackets and colons with the lines above",
)

_CONFLICT: Final = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
"""Lines that version control adds to a file with a conflict."""

_AT_CONTEXT: Final = (
    "found unexpected end of stream",
    "found unexpected document separator",
    "could not find expected ':'",
    "expected ',' or ']'",
    "expected ',' or '}'",
)
"""Errors that are noticed later than where they begin, such as an open quote at the end of the file."""


def describe_syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str, str]:
    """Return the line of a syntax error from 1, what is wrong there, and what to do."""
    if (conflict := _CONFLICT.search(text)) is not None:
        line = text.count("\n", 0, conflict.start()) + 1
        return line, "has the marks of a merge conflict", "resolve the conflict, and remove the marks"
    problem = error.problem or ""
    mark = error.problem_mark
    if problem.startswith(_AT_CONTEXT) and error.context_mark is not None:
        mark = error.context_mark
    for beginning, message, hint in _HINTS:
        if problem.startswith(beginning):
            return (mark.line + 1 if mark else 0), message, hint
    return (mark.line + 1 if mark else 0), *_GENERAL


def path_at(text: str, mark: yaml.Mark | None) -> tuple[int | str, ...]:
    """Return the path of the setting at a mark in a text, or at its first syntax error before that."""

    def reached(event: yaml.Event) -> bool:
        start = event.start_mark if isinstance(event, yaml.NodeEvent) else None
        return mark is not None and start is not None and start.index >= mark.index

    stack: list[tuple[bool, int | str | None]] = []  # whether it is a mapping, and its current key or index
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            elif stack and isinstance(event, yaml.NodeEvent):
                mapping, current = stack[-1]
                if not mapping:
                    stack[-1] = mapping, 0 if not isinstance(current, int) else current + 1
                elif current is None:
                    # A key; a collection as a key is an error of its own.
                    stack[-1] = mapping, event.value if isinstance(event, yaml.ScalarEvent) else "?"
                    if isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) and not reached(event):
                        continue
            if reached(event):
                break
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append((isinstance(event, yaml.MappingStartEvent), None))
            elif isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionEndEvent) and stack:
                mapping, current = stack[-1]
                if mapping:
                    stack[-1] = mapping, None  # the value is complete
    except (yaml.YAMLError, RecursionError):
        pass
    return tuple(current for _, current in stack if current is not None)
