"""Time and level in the headers of lines, in the forms that common programs write."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.events import parse_time
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
UNREAD = "2026-11-30T12:00:00.000Z"
"""Time of an event whose line has no usable time."""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the host's time zone to UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def parse_lines(*lines: str, zone: str | None = None, written: float = NOW) -> list[ParsedEvent]:
    """Parse the lines of a file."""
    settings = ParseSettings(zone=ZoneInfo(zone) if zone is not None else None, multiline="off")
    data = [line.encode() for line in lines]
    return Parser(settings, "app", ParserCounts()).feed(
        data, list(range(1, len(data) + 1)), NOW, written=written
    )


@pytest.mark.parametrize(
    ("line", "timestamp", "level"),
    [
        # Access logs have no level unless it is asked for.
        ('10.0.0.1 - ann [24/Jun/2025:10:30:45 +0200] "GET / X" 500 2', "2025-06-24T08:30:45.000Z", "INFO"),
        ('a:443 10.0.0.1 x1 bob [24/Jun/2025:10:30:45 +0000] "-" 400', "2025-06-24T10:30:45.000Z", "INFO"),
        ("[Tue Jun 24 10:30:45.123456 2025] [core:error] [pid 1:tid 2] AH1: x", "2025-06-24T10:30:45.123456Z",
         "ERROR"),
        ("[Tue Jun 24 10:30:45 2025] [notice] up", "2025-06-24T10:30:45.000Z", "INFO"),
        ("2025/06/24 10:30:45 [warn] 12#12: *3 a client is slow", "2025-06-24T10:30:45.000Z", "WARN"),
        ("[1] 2025/06/24 10:30:45.123456 [ERR] no route", "2025-06-24T10:30:45.123456Z", "ERROR"),
        ("1:M 24 Jun 2025 10:30:45.123 # out of memory", "2025-06-24T10:30:45.123Z", "WARN"),
        ("1:M 24 Jun 2025 10:30:45.123 * Ready to accept", "2025-06-24T10:30:45.123Z", "INFO"),
        ("25/06/24 10:30:45 WARN executor.Backend: lost", "2025-06-24T10:30:45.000Z", "WARN"),
        ("250624 103045 148 ERROR dfs.DataNode: lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("06-24 10:30:45.123  1702  2395 W Manager: slow", "2026-06-24T10:30:45.123Z", "WARN"),
        ("06-24 10:30:45.123  1702  2395 V Manager: ok", "2026-06-24T10:30:45.123Z", "DEBUG"),
        ("Jun 24, 2025 10:30:45 PM com.example.Main run", "2025-06-24T22:30:45.000Z", "INFO"),
        ("SEVERE: lost", UNREAD, "ERROR"),
        ("2025-06-24 10:30:45,123 [main] ERROR com.example.Db - lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("2025-06-24 10:30:45.123  WARN 12 --- [main] c.e.App : slow", "2025-06-24T10:30:45.123Z", "WARN"),
        ("10:30:45.123 [main] ERROR com.example.Db - lost", "2026-11-30T10:30:45.123Z", "ERROR"),
        ("13:30:45 DEBUG yesterday", "2026-11-29T13:30:45.000Z", "DEBUG"),
        ("[24-Jun-2025 10:30:45 UTC] PHP Warning:  x", "2025-06-24T10:30:45.000Z", "WARN"),
        ("[24-Jun-2025 10:30:45 UTC] PHP Fatal error:  x", "2025-06-24T10:30:45.000Z", "CRITICAL"),
        ("1750761045.123    921 10.0.0.1 TCP_MISS/200 1 GET x", "2025-06-24T10:30:45.123Z", "INFO"),
        ("1750761045 up", "2025-06-24T10:30:45.000Z", "INFO"),
        ("1750761045123 up", "2025-06-24T10:30:45.123Z", "INFO"),
        ("[1750761045] SERVICE ALERT: x", "2025-06-24T10:30:45.000Z", "INFO"),
        ("type=SYSCALL msg=audit(1750761045.123:24287): arch=c", "2025-06-24T10:30:45.123Z", "INFO"),
        ("E0624 10:30:45.123456   12 file.go:123] lost", "2026-06-24T10:30:45.123456Z", "ERROR"),
        ("ERROR [2025-06-24 10:30:45,123] com.example: lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("[WARN] 2025-06-24 10:30:45 slow", "2025-06-24T10:30:45.000Z", "WARN"),
        ("Thread-1::ERROR::2025-06-24 10:30:45,101::vm::71::lost", "2025-06-24T10:30:45.101Z", "ERROR"),
        ("[2025-06-24T10:30:45Z WARN  app::db] slow", "2025-06-24T10:30:45.000Z", "WARN"),
        ("2025-06-24 10:30:45, Warning               CBS    slow", "2025-06-24T10:30:45.000Z", "WARN"),
        ("2025-06-24T10:30:45.123Z\terror\tdb/x.go:128\tlost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("2025-06-24 10:30:45,123 error, lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("2025-06-24 10:30:45 EROR lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("2025-06-24 10:30:45 ERROR+2 lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("2025-06-24 10:30:45 debug2 x", "2025-06-24T10:30:45.000Z", "DEBUG"),
        ("2025-6-4 9:05:07 warn x", "2025-06-04T09:05:07.000Z", "WARN"),
        ("[2025-06-24 10:30:45] production.ERROR: lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("2025-06-24T10:30:45.123456Z 0 [Warning] [MY-1] x", "2025-06-24T10:30:45.123456Z", "WARN"),
        ("2025-06-24 10:30:45.123 CEST [12] ERROR:  lost", "2025-06-24T08:30:45.123Z", "ERROR"),
        ("2025-06-24 10:30:45,123 f2b.filter  [12]: WARNING [sshd] x", "2025-06-24T10:30:45.123Z", "WARN"),
        ("web-1  | 2025-06-24T10:30:45.123Z up", "2025-06-24T10:30:45.123Z", "INFO"),
        ("2025-175T10:30:45,672:DEBUG:x", "2025-06-24T10:30:45.672Z", "DEBUG"),
        ("@40000000685a7e5f075bb290 tcpserver: status: 5/30", "2025-06-24T10:30:45.123450Z", "INFO"),
        ("- 1750761045 2025.06.24 R0-M1 2025-06-24-03.30.45.1 R0-M1 RAS KERNEL FATAL x",
         "2025-06-24T10:30:45.000Z", "CRITICAL"),
        ("20250624-9:5:7:80|Step|3|x", "2025-06-24T09:05:07.080Z", "INFO"),
        ("[06.24 10:30:45] app.exe - a:5 open", "2026-06-24T10:30:45.000Z", "INFO"),
        ('[pid: 8|app: 0|req: 1/1] 127.0.0.1 () {38 vars in 9 bytes} [Tue Jun 24 10:30:45 2025] POST /x',
         "2025-06-24T10:30:45.000Z", "INFO"),
        ("I, [2025-06-24T10:30:45.123456 #12]  WARN -- : slow", "2025-06-24T10:30:45.123456Z", "WARN"),
        ("[2025-06-24 10:30:45,123: ERROR/MainProcess] lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("[2025-06-24T10:30:45,123][WARN ][o.e.n.Node] slow", "2025-06-24T10:30:45.123Z", "WARN"),
        ("[2025-06-24 10:30:45.123][7][error][main] [a.cc:1] lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("[2025-06-24 10:30:45.123][a::b::c][ERROR] lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("2025-06-24T10:30:45.123+0000 W NETWORK  [conn1] slow", "2025-06-24T10:30:45.123Z", "WARN"),
        ("2025-06-24 10:30:45.123456 W | etcdserver: slow", "2025-06-24T10:30:45.123456Z", "WARN"),
        ("2025-06-24 10:30:45.1|Warn|Auth|failed", "2025-06-24T10:30:45.100Z", "WARN"),
        ("2025-06-24 10:30:45.123 UTC [12] a@b FATAL:  lost", "2025-06-24T10:30:45.123Z", "CRITICAL"),
        ("https 2025-06-24T10:30:45.123456Z app/x 1.2.3.4:5", "2025-06-24T10:30:45.123456Z", "INFO"),
        ("06/24-10:30:45.123456  [**] [1:2:3] x", "2026-06-24T10:30:45.123456Z", "INFO"),
        ("24-Jun-2025 10:30:45.123 SEVERE [main] a.B lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("W/Tag(  123): slow", UNREAD, "WARN"),
        ("[Tue Jun 24 10:30:45.123456 2025] [:error] [pid 1] x", "2025-06-24T10:30:45.123456Z", "ERROR"),
        ("06/24/25 10:30:45.123456 web_php[12].ERR [::1] [lost]", "2025-06-24T10:30:45.123456Z", "ERROR"),
        ("2025-06-24 10:30:45.12 Backup      Error: 3041, Severity: 16", "2025-06-24T10:30:45.120Z", "ERROR"),
        ("24-Jun-2025 10:30:45.123 security: error: denied", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("Jun 24 10:30:45 update-security: error: denied", "2026-06-24T10:30:45.000Z", "ERROR"),
        ("<W>2025-06-24 10:30:45.123 1 => slow", "2025-06-24T10:30:45.123Z", "WARN"),
        ("[PDT Jun 24 03:30:45] warning  : 'disk' is full", "2026-06-24T10:30:45.000Z", "WARN"),
        ("Jun-24-25 10:30:45 [Worker_1] 10.0.0.1 slow", "2025-06-24T10:30:45.000Z", "INFO"),
        ("2025:06:24-10:30:45: '10.0.0.1' 2 failures", "2025-06-24T10:30:45.000Z", "INFO"),
        ("L 06/24/2025 - 10:30:45: Rcon from 10.0.0.1", "2025-06-24T10:30:45.000Z", "INFO"),
        ("mx.example exim[12]: 2025-06-24 10:30:45 lost", "2025-06-24T10:30:45.000Z", "INFO"),
        ("host nginx[12]: 2025/06/24 10:30:45 [error] 12#0: lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ('api 10.0.0.1 - 95386da8 - [24/Jun/2025:10:30:45 +0000] "GET / X" 200', "2025-06-24T10:30:45.000Z",
         "INFO"),
        ("03/04/2025-10:30:45.123456  [**] [1:2:3] x", "2025-03-04T10:30:45.123456Z", "INFO"),
        ("1750761045.123456.0 [24/Jun/2025 12:30:45] root", "2025-06-24T10:30:45.123456Z", "INFO"),
        ("feed  | time=2025-06-24T10:30:45Z level=WARN msg=slow", "2025-06-24T10:30:45.000Z", "WARN"),
        ("2025.06.24D10:30:45.123456789 info feed up", "2025-06-24T10:30:45.123456789Z", "INFO"),
        ("2025.06.24D10:30:45.123456000|gw1|rdb1|ERR|conn|lost", "2025-06-24T10:30:45.123456000Z", "ERROR"),
        ("2025-06-24T10:30:45Z E! [outputs.x] lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("=ERROR REPORT==== 24-Jun-2025::10:30:45.123456 ===", "2025-06-24T10:30:45.123456Z", "ERROR"),
        ('2025-06-24 10:30:45.123 UTC,"risk","md",7,"10.0.0.1:5",5c,1,"SELECT",x,3/1,0,FATAL,42P01,"lost"',
         "2025-06-24T10:30:45.123Z", "CRITICAL"),
        ("W250624 10:30:45.123456 77 server/node.go:1 ⋮ [n1] 5 slow", "2025-06-24T10:30:45.123456Z", "WARN"),
        ("[24-Jun-2025 10:30:45 UTC] PHP Parse error:  x", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("[6/24/25 10:30:45:123 CEST] 0000004a WebContainer I x", "2025-06-24T08:30:45.123Z", "INFO"),
        ("2025-06-24 10:30:45:123 WARN slow", "2025-06-24T10:30:45.123Z", "WARN"),
        ("Jun 24 2025 10:30:45: %ASA-4-106023: Deny tcp", "2025-06-24T10:30:45.000Z", "WARN"),
        ("*Jun 24 10:30:45.123: %LINK-3-UPDOWN: down", "2026-06-24T10:30:45.123Z", "ERROR"),
        ("Jun 24 10:30:45 sw1 rib: %LINEPROTO-5-UPDOWN: down", "2026-06-24T10:30:45.000Z", "INFO"),
        ("Jun 24 10:30:45 bigip err tmm[7]: 01010028:3: no members", "2026-06-24T10:30:45.000Z", "ERROR"),
        ("jun/24/2025 10:30:45 system,info logged in", "2025-06-24T10:30:45.000Z", "INFO"),
        ("[1750761045] unbound[7:0] error: lost", "2025-06-24T10:30:45.000Z", "ERROR"),
        ("[2025-06-24 10:30:45.123456 +0000] W [x.c:1:f] 0-vol: slow", "2025-06-24T10:30:45.123456Z", "WARN"),
        ("2025-06-24 10:30:45.123+0000: 7: error : lost", "2025-06-24T10:30:45.123Z", "ERROR"),
        ("WARN [06-24|10:30:45.123] Slow   n=1", "2026-06-24T10:30:45.123Z", "WARN"),
        ("9:30:45 AM WARN slow", "2026-11-30T09:30:45.000Z", "WARN"),
        ("478760 10:30:45.123456 openat(AT_FDCWD) = 3", "2026-11-30T10:30:45.123456Z", "INFO"),
        ("[12] 24 Jun 10:30:45.123 # Sentinel is slow", "2026-06-24T10:30:45.123Z", "WARN"),
        ("Jun-24 10:30:45.123 [main] DEBUG nextflow.cli.Launcher - up", "2026-06-24T10:30:45.123Z", "DEBUG"),
        ("INFO   | jvm 1    | 2025/06/24 10:30:45 | up", "2025-06-24T10:30:45.000Z", "INFO"),
        ("26-11-30 10:30:45 year first", "2026-11-30T10:30:45.000Z", "INFO"),
        ("30-11-26 10:30:45 day first", "2026-11-30T10:30:45.000Z", "INFO"),
        ("31-05-25 10:30:45 day first", "2025-05-31T10:30:45.000Z", "INFO"),
        ("06-24-25 10:30:45 month first", "2025-06-24T10:30:45.000Z", "INFO"),
        ('"2025-06-24" "10:30:45" "x"', "2025-06-24T10:30:45.000Z", "INFO"),
    ],
)  # fmt: skip
def test_a_header_of_a_common_program_is_read(line: str, timestamp: str, level: str) -> None:
    """Time and level are read from the first line of a file, and from later ones."""
    for event in parse_lines(line, line, line):
        assert (event.timestamp, event.level) == (timestamp, level)


@pytest.mark.parametrize(
    "line",
    [
        "the job of 2025-06-24 10:30:45 is late",
        "until=2025-06-24T10:30:45Z is the end",
        "order 1750761045 filled",
        "1950761045 is in the future",
        "rows 12:30:45",
        "1.2.3.4:10:30:45",
        "2025-06-24 10:30",
        "version 2025.06.24 10:30:45",
        "03/04/2025 10:30:45 x",
        "25-06-24 10:30:45 x",
        "24-06-25 10:30:45 x",
        "2025-06-24 10:30:45 IST x",
        "25:61:61 x",
        "PDT Jun 24 x",
        "0:00:00.123456789  7 0x55 WARN x slow",
        "3 of 2025:06:24",
        "E9999 99:99:59.1 1 a.go:1] x",
    ],
)
def test_what_may_be_no_time_is_none(line: str) -> None:
    """A time within a message, one that can be read in two ways, and one in an unknown zone is not used."""
    assert parse_lines(line)[0].timestamp == UNREAD


@pytest.mark.parametrize(
    "line",
    [
        "2025-06-24 10:30:45 received an ERROR from the peer",
        "2025-06-24 10:30:45 level of WARNING lights",
        "Jun 24 10:30:45 host app[1]: no ERROR was found",
        "an ERROR is a word",
        "2025-06-24 10:30:45 I am E",
        "2025-06-24 10:30:45 Alert the others",
        "GET /error HTTP/1.1",
        "2025-06-24 10:30:45 error.log was opened",
        "2025-06-24 10:30:45 the field security: error: was set",
        "Connection       error rate 3",
        "2025-06-24 10:30:45 100%-3-ERR: x",
        "2025-06-24 10:30:45 E is a letter",
        "[7] 2025-06-24 10:30:45 - Worker 0 booted",
        "2025-06-24 10:30:45 a:error is printed",
    ],
)
def test_words_of_the_message_are_no_level(line: str) -> None:
    """A level within a message does not decide."""
    assert parse_lines(line)[0].level == "INFO"


def test_access_logs_have_a_level_by_status_on_request() -> None:
    """With the setting, a line of an access log has a level by the class of its status."""
    lines = [
        f'10.0.0.1 - - [24/Jun/2025:10:30:45 +0000] "GET /a HTTP/1.1" {status} 5 "-" "curl"'.encode()
        for status in (200, 304, 404, 502)
    ]
    parser = Parser(ParseSettings(access_levels=True, multiline="off"), "app", ParserCounts())
    assert [event.level for event in parser.feed(lines, [1, 2, 3, 4], NOW)] == [
        "INFO",
        "INFO",
        "WARN",
        "ERROR",
    ]


def test_an_unknown_zone_is_flagged() -> None:
    """The name of a zone that several zones have is flagged, unless the file's zone has this name."""
    line = "2025-06-24 10:30:45 CST INFO x"
    for event in parse_lines(line, line):
        assert (event.timestamp, event.metadata) == (UNREAD, {"unknown_zone": "CST"})
    event = parse_lines(line, zone="Asia/Shanghai")[0]
    assert (event.timestamp, event.metadata) == ("2025-06-24T02:30:45.000Z", {})
    event = parse_lines("2025-01-24 10:30:45 CST INFO x", zone="America/Chicago")[0]
    assert event.timestamp == "2025-01-24T16:30:45.000Z"


@pytest.mark.parametrize(
    ("lines", "timestamps"),
    [
        (["03/04/2025 10:30:45 x", "13/04/2025 10:30:45 x", "03/04/2025 10:30:45 x"],
         [UNREAD, "2025-04-13T10:30:45.000Z", "2025-04-03T10:30:45.000Z"]),
        (["04/13/2025 10:30:45 x", "03/04/2025 10:30:45 x"],
         ["2025-04-13T10:30:45.000Z", "2025-03-04T10:30:45.000Z"]),
        (["03/04/2025 10:30:45 PM x"], ["2025-03-04T22:30:45.000Z"]),
        (["03.04.2025 10:30:45 x"], ["2025-04-03T10:30:45.000Z"]),
        (["11/11/2025 10:30:45 x"], ["2025-11-11T10:30:45.000Z"]),
        (["30/11/2026 11:30:45 x"], ["2026-11-30T11:30:45.000Z"]),
    ],
)  # fmt: skip
def test_the_order_of_day_and_month_is_decided_by_the_file(lines: list[str], timestamps: list[str]) -> None:
    """A number above 12 decides for the file; before, only a.m., p.m. and dots do."""
    assert [event.timestamp for event in parse_lines(*lines)] == timestamps


def test_a_log_of_today_decides_the_order_of_day_and_month() -> None:
    """Of two possible dates, one that is at most a day from now is the right one."""
    now = datetime(2026, 5, 6, 12, tzinfo=UTC).timestamp()
    for line in ("05/06/2026 11:59:58 x", "06/05/2026 11:59:58 x"):
        assert parse_lines(line, written=now)[0].timestamp == "2026-05-06T11:59:58.000Z"


def test_missing_parts_are_those_of_the_last_write() -> None:
    """A missing year or date is that of the time at which the file was written last."""
    written = datetime(2019, 2, 3, 9, tzinfo=UTC).timestamp()
    events = parse_lines("Mar  4 10:00:00 host a: x", "10:30:45 INFO x", "08:30:45 INFO x", written=written)
    assert [event.timestamp[:16] for event in events] == [
        "2018-03-04T10:00", "2019-02-02T10:30", "2019-02-03T08:30",
    ]  # fmt: skip


def test_a_header_dates_the_times_after_it() -> None:
    """A header with a date, as in the extended log format of W3C, dates the times after it."""
    events = parse_lines("#Date: 2019-02-03 23:59:00", "23:59:01 10.0.0.1 GET", "00:00:01 10.0.0.1 GET")
    assert [event.timestamp[:16] for event in events] == [
        "2019-02-03T23:59", "2019-02-03T23:59", "2019-02-04T00:00",
    ]  # fmt: skip


Write = Callable[[datetime], str]
FORMATS: dict[str, Write] = {
    pattern: lambda moment, pattern=pattern: moment.strftime(pattern)  # type: ignore[misc]
    for pattern in (
        "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S.%f UTC", "%Y/%m/%d %H:%M:%S,%f +0000", "%Y%m%d %H%M%S.%f",
        "%Y%m%dT%H%M%SZ", "%Y-%m-%d-%H.%M.%S.%f", "%Y-%jT%H:%M:%S.%f", "[%d/%b/%Y:%H:%M:%S +0000]",
        "[%d-%b-%Y %H:%M:%S UTC]", "%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S.%f %Y",
        "%a %b %d %H:%M:%S UTC %Y", "%b %d, %Y %I:%M:%S %p", "%B %d, %Y %H:%M:%S", "%b %d %H:%M:%S",
        "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S.%f %p", "%m-%d %H:%M:%S.%f", "%y%m%d %H:%M:%S",
    )
}  # fmt: skip
FORMATS["epoch"] = lambda moment: f"{moment.timestamp():.6f}"
FORMATS["epoch in ms"] = lambda moment: f"{int(moment.timestamp())}{moment.microsecond // 1000:03}"
FORMATS["epoch in us"] = lambda moment: f"{int(moment.timestamp())}{moment.microsecond:06}"
FORMATS["offset"] = lambda moment: moment.astimezone(ZoneInfo("Asia/Kolkata")).isoformat(" ", "microseconds")
FORMATS["zone"] = lambda moment: f"{moment - timedelta(hours=7):%Y-%m-%d %H:%M:%S.%f} PDT"


@given(
    st.sampled_from(sorted(FORMATS)),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 11, 30), timezones=st.just(UTC)),
    st.sampled_from(["", "[1] ", "[", "<13>"]),
)
def test_a_written_time_is_read_as_the_same_instant(name: str, moment: datetime, before: str) -> None:
    """A time that is written in a supported format is read as the same instant."""
    parser = TimestampParser(ZoneInfo("UTC"))
    parser.set_reference_time(NOW)
    text = FORMATS[name](moment)
    found = parser.find(f"{before}{text} INFO up" if not text.startswith("[") else f"{text} INFO up")
    assert found is not None
    assert found[2] is not None
    read = parse_time(found[2])
    precision = timedelta(
        seconds=0 if "%f" in name or name in ("epoch", "epoch in us", "offset", "zone") else 1
    )
    assert timedelta() <= moment - read <= precision


@given(st.text(st.sampled_from("0123456789:/.-[]() TZ|PMJun,@#=\"'eE"), max_size=60), st.integers(0, 10**11))
def test_any_text_has_a_valid_time_or_none(text: str, now: int) -> None:
    """No text raises an error, and every time is valid."""
    parser = TimestampParser(ZoneInfo("Asia/Shanghai"))
    parser.set_reference_time(float(now))
    for _ in range(2):
        found = parser.find(text)
        if found is not None and found[2] is not None:
            parse_time(found[2])
