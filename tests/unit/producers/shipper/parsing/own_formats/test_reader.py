"""Own formats: fields of lines, redaction, and what has none of the formats."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.format_file.loader import load_formats
from tickertape.producers.shipper.parsing.own_formats.own_format import FormatTable, OwnFormat, compile_format
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

from tickertape.time_zones import parse_zone

NOW = 1_800_000_000.0
CTP = {
    "pattern": r"(?P<time>[\d.]+ [\d:.]+)\|(?P<level>\w+)\|(?P<source>[^|]*)\|(?P<front>\d*)\|"
    r"(?P<message>.*)",
    "time": "%Y.%m.%d %H:%M:%S.%f",
    "zone": "Asia/Shanghai",
    "levels": {"E": "ERROR", "严重": "CRITICAL"},
}


def own(**keys: object) -> OwnFormat:
    """Return a format."""
    return compile_format("ctp", FormatTable.model_validate({**CTP, **keys}))


def read(
    text: str, *formats: OwnFormat, counts: ParserCounts | None = None, **settings: object
) -> list[ParsedEvent]:
    """Return the events of a text."""
    parsing = ParseSettings(own_formats=formats or (own(),), zone=parse_zone("UTC"), **settings)  # type: ignore[arg-type]
    parser = Parser(parsing, "file", counts or ParserCounts())
    lines = text.encode("utf-8", "surrogateescape").split(b"\n")
    return [*parser.feed(lines, [*range(len(lines))], NOW), *parser.flush(NOW)]


def test_the_groups_are_the_fields() -> None:
    """Time, level, source and message are those of the groups; other groups are in metadata."""
    [event] = read("2026.01.31 09:30:45.5|E|gw|7|order rejected")
    assert (event.timestamp, event.level, event.source) == ("2026-01-31T01:30:45.500Z", "ERROR", "gw")
    assert (event.message, event.metadata) == ("order rejected", {"front": "7"})


@pytest.mark.parametrize(
    ("word", "level", "metadata"),
    [
        ("E", "ERROR", {}),
        ("warning", "WARN", {}),
        ("4", "WARN", {}),
        ("LOUD", "INFO", {"level": "LOUD"}),
    ],
)
def test_levels_are_mapped(word: str, level: str, metadata: dict[str, str]) -> None:
    """The words of the format come first, then those of all loggers; metadata keep an unknown word."""
    [event] = read(f"2026.01.31 09:30:45|{word}|gw||m")
    assert (event.level, event.metadata) == (level, metadata)


def test_text_that_is_not_ascii_is_matched_by_character() -> None:
    """An expression matches characters, and groups are cut between them."""
    form = compile_format(
        "cn",
        FormatTable(pattern=r"(?P<level>..)：(?P<message>.{2})(?P<rest>.*)", levels={"严重": "CRITICAL"}),
    )
    [event] = read("严重：报单被拒😀", form)
    assert (event.level, event.message, event.metadata) == ("CRITICAL", "报单", {"rest": "被拒😀"})


def test_other_lines_are_read_as_without_formats() -> None:
    """A line with none of the formats is read by the built-in ones."""
    text = '2026-01-31T09:30:45Z WARN slow\n{"level": "error", "msg": "m"}\nplain'
    events = read(text)
    assert events == read(text, compile_format("x", FormatTable(pattern="(?P<message>XXXX)")))
    assert [(event.level, event.message) for event in events] == [
        ("WARN", "slow"), ("ERROR", "m"), ("INFO", "plain"),
    ]  # fmt: skip


def test_the_first_format_that_matches_counts() -> None:
    """Formats are tried in the order of the file."""
    first = compile_format("a", FormatTable(pattern="A(?P<message>.+)"))
    second = compile_format("b", FormatTable(pattern="(?P<rest>.)(?P<message>.+)"))
    assert [event.metadata for event in read("Ax\nBx", first, second)] == [{}, {"rest": "B"}]


def test_lines_that_continue_an_event_belong_to_its_message() -> None:
    """A traceback after a line of the format is in the same event, complete."""
    [event, other] = read("2026.01.31 09:30:45|E|gw|7|failed\n  at x\n\n  at y\n2026.01.31 09:30:46|E|gw|7|b")
    assert (event.message, other.message) == ("failed\n  at x\n\n  at y", "b")
    whole = own(pattern=r"(?P<time>[\d.]+ [\d:.]+)\|(?P<level>\w+)\|.*")
    [event] = read("2026.01.31 09:30:45|E|failed\n  at x", whole)
    assert event.message == "2026.01.31 09:30:45|E|failed\n  at x"


def test_start_joins_lines() -> None:
    """Lines between two that match ``start`` belong to the first; other files keep their joining."""
    text = "2026.01.31 09:30:45|E|gw|7|order\nReason: x\n2026-01-31 INFO y\n2026.01.31 09:30:46|I|gw|7|b"
    assert [event.message.count("\n") for event in read(text, own(start=r"^\d{4}\."))] == [2, 0]
    assert len(read(text, own(start=r"^\d{4}\."), multiline=r"^\d{4}-")) == 3
    assert len(read(text, own(start=r"^\d{4}\."), multiline="off")) == 2
    assert len(read(text, multiline="off")) == 4


@pytest.mark.parametrize(
    ("line", "message", "metadata"),
    [
        # The name of the secret is in the same group, and in the one before.
        ("2026.01.31 09:30:45|E|gw|7|login password=hunter2 ok", "login password=[redacted:password] ok",
         {"front": "7"}),
        ("2026.01.31 09:30:45|E|gw|7|card 4111 1111 1111 1111", "card [redacted:card]", {"front": "7"}),
    ],
)  # fmt: skip
def test_what_a_format_reads_is_redacted(line: str, message: str, metadata: dict[str, str]) -> None:
    """Secrets in lines of the format are redacted as in all others."""
    counts = ParserCounts()
    [event] = read(line, counts=counts)
    assert (event.message, event.metadata, event.source) == (message, metadata, "gw")
    assert counts.redacted.total() == 1


def test_a_secret_whose_name_is_in_another_group_is_redacted() -> None:
    """A line is redacted before it is split into groups."""
    form = compile_format("x", FormatTable(pattern=r"(?P<name>\w+)=(?P<value>\S+) (?P<message>.*)"))
    [event] = read("password=hunter2 ok", form)
    assert event.metadata == {"name": "password", "value": "[redacted:password]"}


@pytest.mark.parametrize("message", [r"(?P<message>.*)", r"(?P<message>for (?P<api_key>\S+) .*)", r".*"])
def test_a_group_with_the_name_of_a_secret_is_redacted_everywhere(message: str) -> None:
    """A secret that only its group denotes is redacted, in overlapping groups and in the message too."""
    form = compile_format("x", FormatTable(pattern=rf"user (?P<user>\w+) with (?P<password>\S+) {message}"))
    counts = ParserCounts()
    [event] = read("user bob with hunter2 for qwertz77 now", form, counts=counts)
    text = f"{event.message} {event.metadata}"
    assert "hunter2" not in text
    assert "[redacted:password]" in text
    assert ("qwertz77" in text) != ("api_key" in message)
    assert counts.redacted.total() == (2 if "api_key" in message else 1)


@pytest.mark.parametrize(
    ("pattern", "line", "message", "metadata"),
    [
        # The secret is a group of its own, with or without a name that denotes it.
        (r"(?P<card_no>\d{16}) (?P<message>.*)", "4111111111111111 paid", "paid",
         {"card_no": "[redacted:card]"}),
        (r"(?P<x>[\d ]{19}) (?P<message>.*)", "4111 1111 1111 1111 paid", "paid", {"x": "[redacted:card]"}),
        (r"(?P<password>\w+) (?P<y>\w+) (?P<message>.*)", "hunter2 b paid", "paid",
         {"password": "[redacted:password]", "y": "b"}),
        # It is a part of the message.
        (r"(?P<x>\w) (?P<message>[\w= ]+)", "1 login password=hunter2 ok",
         "login password=[redacted:password] ok", {"x": "1"}),
        # Its name is in another group, without which nothing tells that it is a secret.
        (r"(?P<name>\w+)=(?P<value>\w+) (?P<message>.*)", "password=hunter2 ok", "ok", {"name": "password"}),
        # A value between two secrets cannot be told from them.
        (r"(?P<a>[\d ]{19}) (?P<b>\w) (?P<c>[\d ]{19}) (?P<message>.*)",
         "4111 1111 1111 1111 z 4111 1111 1111 1111 paid", "paid",
         {"a": "[redacted:card]", "c": "[redacted:card]"}),
    ],
)  # fmt: skip
def test_a_secret_that_the_expression_requires_is_redacted(
    pattern: str, line: str, message: str, metadata: dict[str, str]
) -> None:
    """A line that no longer matches without its secret keeps its fields, except for the secret."""
    form = own(pattern=rf"(?P<time>[\d.]+ [\d:.]+) (?P<level>\w) {pattern}")
    counts = ParserCounts()
    [event] = read(f"2026.01.31 09:30:45 E {line}\n  more", form, counts=counts)
    assert (event.level, event.timestamp) == ("ERROR", "2026-01-31T01:30:45.000Z")
    assert (event.message, event.metadata) == (f"{message}\n  more", metadata)
    assert counts.redacted.total() == (2 if " z " in line else 1)


def test_terminal_escapes_are_removed_before_a_line_is_matched() -> None:
    """A coloured line has its format, and no escape reaches an event."""
    [event] = read("\x1b[31m2026.01.31 09:30:45|E|gw|7|re\x1b[0md\x1b[0m")
    assert (event.level, event.message) == ("ERROR", "red")


def test_a_source_that_cannot_be_part_of_a_subject_is_that_of_the_file() -> None:
    """An empty source is replaced by that of the file."""
    assert [event.source for event in read("2026.01.31 09:30:45|E||7|m\n2026.01.31 09:30:45|E|a b|7|m")] == [
        "file", "a b",
    ]  # fmt: skip


@given(
    st.text(max_size=60), st.sampled_from([r".+", r"(?P<password>.)(?P<message>.*)", r"\C(?P<message>.+)"])
)
def test_any_text_is_an_event(text: str, pattern: str) -> None:
    """Any text is read, and encodes as a valid event; cut characters are replaced."""
    form = compile_format("x", FormatTable(pattern=f"(?P<group>{pattern})"))
    for event in read(text, form):
        assert event.encode()


def test_a_format_can_be_loaded_from_a_file(tmp_path: Path) -> None:
    """The keys of a file are those of the format."""
    path = tmp_path / "formats.toml"
    path.write_text("[formats.one]\npattern = '(?P<lvl>\\w) (?P<text>.*)'\nlevel = 'lvl'\nmessage = 'text'\n")
    [event] = read("E failed", *load_formats(path))
    assert (event.level, event.message) == ("ERROR", "failed")
