"""FIX messages in log lines: separators are shown, secrets redacted, and identifiers kept in metadata."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

NOW: Final = 1_750_000_000.0
SENT: Final = "52=20240102-10:00:00.120"
LOGON: Final = [
    "8=FIX.4.4",
    "9=100",
    "35=A",
    "49=DESK",
    "56=BROKER",
    "34=7",
    SENT,
    "553=bob",
    "554=hun|ter2",
    "10=1",
]
SEPARATORS: Final = ["\x01", "|", "^A", "<SOH>", "\u2401", "\\x01", ";"]


def _events(*lines: str, counts: ParserCounts | None = None) -> list[ParsedEvent]:
    data = [line.encode() for line in lines]
    parser = Parser(ParseSettings(multiline="off"), "fix", counts or ParserCounts())
    return parser.feed(data, [len(line) for line in data], NOW)


def _fix(line: str) -> Any:
    (event,) = _events(line)
    return event.metadata.get("fix")


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize(
    "prefix", ["", "FIX.4.4:DESK->BROKER: ", "20240102-10:00:00.123: ", "\x00\x01\x02\x7f", "(in) "]
)
def test_a_logon_is_described_without_its_password(separator: str, prefix: str) -> None:
    """A message keeps its fields apart, however the log writes SOH, and the password is redacted."""
    fields = [field.replace("|", "") if separator == "|" else field for field in LOGON]
    (event,) = _events(prefix + "".join(field + separator for field in fields))
    shown = "|" if separator == "\x01" else separator
    assert f"35=A{shown}49=DESK{shown}" in event.message
    assert f"554=[redacted:password]{shown}10=1{shown}" in event.message
    assert event.metadata["fix"] == {
        "begin_string": "FIX.4.4",
        "msg_type": "A",
        "msg_name": "Logon",
        "sender_comp_id": "DESK",
        "target_comp_id": "BROKER",
        "msg_seq_num": 7,
        "sending_time": "20240102-10:00:00.120",
    }
    assert event.timestamp.startswith("2024-01-02T10:00:00.12")


def test_orders_and_executions_keep_their_identifiers() -> None:
    """Identifiers of orders and executions are in metadata; of a group, the first value."""
    order = _fix("8=FIX.4.2|9=1|35=E|66=L1|73=2|11=c1|55=ES|54=1|11=c2|55=NQ|54=2|10=1|")
    assert (order["list_id"], order["cl_ord_id"], order["symbol"]) == ("L1", "c1", "ES")
    report = _fix("8=FIX.4.2\x019=1\x0135=8\x0137=o1\x0117=e1\x0111=c1\x0141=c0\x01150=F\x0139=2\x0110=1\x01")
    assert report["msg_name"] == "ExecutionReport"
    assert [report[name] for name in ("order_id", "exec_id", "cl_ord_id", "orig_cl_ord_id")] == [
        "o1",
        "e1",
        "c1",
        "c0",
    ]


def test_several_messages_in_a_line_are_all_described() -> None:
    """The first message is described by ``fix``, the others by ``fix.more``."""
    line = "".join(f"8=FIX.4.2\x019=1\x0135=0\x0134={number}\x0110=1\x01" for number in range(3))
    fix = _fix(line)
    assert fix["msg_seq_num"] == 0
    assert [message["msg_seq_num"] for message in fix["more"]] == [1, 2]
    assert len(_fix(line * 1000)["more"]) == 19


def test_a_message_in_json_is_described() -> None:
    """A message inside a JSON line is treated as one in plain text."""
    counts = ParserCounts()
    text = "8=FIX.4.4\x019=1\x0135=A\x0149=DESK\x01925=hunter2\x0110=1\x01"
    (event,) = _events(json.dumps({"msg": text, "level": "warn"}), counts=counts)
    assert event.message == "8=FIX.4.4|9=1|35=A|49=DESK|925=[redacted:password]|10=1|"
    assert event.metadata["fix"]["sender_comp_id"] == "DESK"
    assert counts.redacted == {"password": 1}


@pytest.mark.parametrize("tag", ["554", "925", "96", "89", "91", "1402", "1404"])
@pytest.mark.parametrize(
    "line",
    [
        "8=FIX.4.4\x019=1\x0135=A\x01{}=s3c|ret\x0110=1\x01",
        "8=FIX.4.4\x0135=A\x01{}=s3cret",
        "{}=s3cret\x0198=0\x01",
        "49=A\x01{}=s3cret\x01",
        "35=A\x0195=8\x01{}=a\x01s3cret\x0198=0\x01",
        "8=FIX.4.4|9=1|35=A|{}=s3cret",
        "35=A|49=B|{}=s3cret|",
        "8=FIX.4.4 9=1 35=A {}=s3cret 10=1",
    ],
)
def test_secret_fields_are_redacted_in_parts_of_messages_too(tag: str, line: str) -> None:
    """The value of a secret field is redacted, whatever it contains and wherever the message was cut."""
    (event,) = _events(line.format(tag))
    assert "s3c" not in event.message
    assert f"{tag}=[redacted:" in event.message


@pytest.mark.parametrize(
    "line", ["35 =A", "8=FIX", "x=1|y=2", "a 35=8 b", "depth 35=12", "8=FIX.4.4|no fields", "|35=|"]
)
def test_other_text_is_no_message(line: str) -> None:
    """Text that is no FIX message is unchanged and has no such metadata."""
    (event,) = _events(line)
    assert event.message == line
    assert "fix" not in event.metadata


@given(
    st.lists(
        st.sampled_from([*LOGON, "\x01", "|", "=", "8=FIX.4.4\x019=", "96=", "95=5", "^A", "\x00", "10="])
    )
)
def test_malformed_messages_are_never_lost(parts: list[str]) -> None:
    """Any text gives exactly one event, unless it is blank, and never an exception."""
    events = _events("x" + "\x01".join(parts))
    assert len(events) == 1
    assert json.loads(events[0].encode())["message"].startswith("x")
