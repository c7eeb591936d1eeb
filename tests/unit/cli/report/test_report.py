"""``tickertape report``: its formats, its pages, and its errors."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tickertape.cli.main import parse
from tickertape.cli.report import command
from tickertape.cli.report.command import ReportError, format_seconds, run
from tickertape.cli.report.settings import ReportSettings, http_url
from tickertape.config.resolve import SettingsError
from tickertape.net.http_client import Response

RANGE = {"since": "2026-01-01T00:00:00.000Z", "until": "2026-01-31T00:00:00.000Z"}


def gateway(name: str, availability: float | None, **durations: float) -> dict[str, Any]:
    """Return a gateway as the relay lists it."""
    measured = {"up_s": 0.0, "down_s": 0.0, "planned_s": 0.0, "unknown_s": 0.0, "incidents": 0, **durations}
    return {
        "gateway_type": "ctp",
        "gateway_id": name,
        "status": "HEALTHY",
        "since": RANGE["since"],
        "availability": {"range": {"availability": availability, **measured}},
    }


INCIDENT = {
    "gateway_type": "ctp",
    "gateway_id": "a",
    "start": "2026-01-05T10:00:00.000Z",
    "end": "2026-01-05T10:02:30.000Z",
    "duration_s": 150.0,
    "down_s": 150.0,
    "planned_s": 0.0,
    "planned": False,
    "error": "connection \x1b[31mrefused",
    "recovery": {"phase": "succeeded", "attempts": 1},
}


class FakeRelay:
    """Relay that lists its gateways one per page."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.gateways = [gateway("a", 0.99876, down_s=150.0, incidents=1), gateway("b,c", None)]
        self.answer: Response | None = None
        monkeypatch.setattr(command, "fetch", self.fetch)

    async def fetch(self, url: str, *_: Any, headers: dict[str, str], **__: Any) -> Response:
        """Answer a request."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self.requests.append((url.partition("?")[0], query, headers))
        if self.answer is not None:
            return self.answer
        if parts.path.endswith("/incidents"):
            return respond({**RANGE, "incidents": [INCIDENT], "count": 3, "more": True})
        second = "after" in query
        more = {} if second else {"next": "ctp.a"}
        return respond({**RANGE, "gateways": [self.gateways[second]], "more": not second, **more})


def respond(body: Any, status: int = 200) -> Response:
    """Return a response with a body."""
    return Response(status, (), json.dumps(body).encode(), False, None)


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> FakeRelay:
    """Return a relay that answers the command."""
    return FakeRelay(monkeypatch)


def report(*arguments: str) -> int:
    """Run the command."""
    return asyncio.run(run(parse(ReportSettings, list(arguments))))


def test_a_report_is_a_table(relay: FakeRelay, capsys: pytest.CaptureFixture[str]) -> None:
    """Gateways and incidents are listed, with escaped texts, and what is not listed is counted."""
    assert report() == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-01-01T00:00:00.000Z to 2026-01-31T00:00:00.000Z",
        "",
        "gateway  status   availability    down  planned  unknown  incidents",
        "ctp/a    HEALTHY      99.876 %  2m 30s       0s       0s          1",
        "ctp/b,c  HEALTHY             -      0s       0s       0s          0",
        "",
        "3 incidents",
        "2026-01-05T10:00:00.000Z      2m 30s  ctp/a  connection \\x1b[31mrefused"
        " (recovery succeeded after 1 attempt)",
        "2 earlier incidents are not listed; use a later --since",
    ]


def test_a_report_says_what_the_relay_lacks(relay: FakeRelay, capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway whose oldest statuses the relay has dropped is counted."""
    relay.gateways[1]["truncated"] = True
    assert report() == 0
    assert "1 gateway with too many statuses: the oldest are unknown here" in capsys.readouterr().out


def test_a_report_is_csv(relay: FakeRelay, capsys: pytest.CaptureFixture[str]) -> None:
    """There is a line for each gateway."""
    assert report("--csv", "--since", "7d") == 0
    assert capsys.readouterr().out.splitlines() == [
        "gateway_type,gateway_id,status,availability,up_s,down_s,planned_s,unknown_s,incidents",
        "ctp,a,HEALTHY,0.99876,0.0,150.0,0.0,0.0,1",
        'ctp,"b,c",HEALTHY,,0.0,0.0,0.0,0.0,0',
    ]


@pytest.mark.parametrize("first", ["=", "+", "-", "@"])
def test_a_spreadsheet_runs_no_id_as_a_formula(
    relay: FakeRelay, capsys: pytest.CaptureFixture[str], first: str
) -> None:
    """A text that begins like a formula has an apostrophe before it, and a negative number has none."""
    relay.gateways[1]["gateway_id"] = f"{first}HYPERLINK(1,2)"
    relay.gateways[1]["availability"]["range"]["down_s"] = -1.0
    assert report("--csv") == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert line == f'ctp,"\'{first}HYPERLINK(1,2)",HEALTHY,,0.0,-1.0,0.0,0.0,0'


def test_all_pages_are_of_one_range(
    relay: FakeRelay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The range of the first page applies to the others; the token is sent, and a mounted feed is found."""
    (tmp_path / "token").write_text("a.b.c\n")
    options = ("--url", "ws://host:1/feed/ws", "--token-file", str(tmp_path / "token"))
    assert report("--json", "--until", "1d", *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["gateway_id"] for one in printed["gateways"]] == ["a", "b,c"]
    assert (printed["since"], printed["more_incidents"]) == (RANGE["since"], 2)
    times = {key: [value] for key, value in RANGE.items()}
    token = {"Authorization": "Bearer a.b.c"}
    assert relay.requests == [
        ("http://host:1/feed/gateways", {"since": ["30d"], "until": ["1d"]}, token),
        ("http://host:1/feed/gateways", {**times, "after": ["ctp.a"]}, token),
        ("http://host:1/feed/incidents", {**times, "limit": ["1000"]}, token),
    ]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (respond({"code": "unauthorized", "message": "token required"}, 401), "token required"),
        (respond({"code": "unavailable", "message": "it is being loaded"}, 503), "being loaded"),
        (respond({"code": "bad_query", "message": "no resource"}, 404), "HTTP 404"),
        (respond([]), "HTTP 200"),
        (Response(200, (), b"<html>", False, None), "HTTP 200"),
    ],
)
def test_a_rejection_is_an_error(
    relay: FakeRelay, answer: Response, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the relay answers is reported with what to do; one that is not ready yet is asked again."""
    monkeypatch.setattr(command, "RETRY_DELAY", 0.0)
    relay.answer = answer
    with pytest.raises(ReportError, match=text):
        report()
    assert len(relay.requests) == (command.ATTEMPTS if answer.status == 503 else 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--since", "soon"), "neither a duration"),
        (("--csv", "--json"), "mutually exclusive"),
        (("--url", "http://x"), "url"),
        (("--ca", "x.pem"), "wss"),
    ],
)
def test_bad_options_are_rejected(arguments: tuple[str, ...], text: str) -> None:
    """Options are checked before the relay is asked."""
    with pytest.raises(SettingsError, match=text):
        parse(ReportSettings, list(arguments))


def test_the_address_follows_from_that_of_the_feed() -> None:
    """The address is that of the feed, as for ``tail``."""
    urls = ("ws://h:1/ws", "wss://h/ws?x=1", "ws://h/feed/", "ws://[::1]:8080")
    found = [http_url(ReportSettings(url=url)) for url in urls]
    assert found == ["http://h:1", "https://h", "http://h/feed", "http://[::1]:8080"]


def test_durations_are_short() -> None:
    """A duration has its two largest units."""
    seconds = (0, 59.6, 61, 3_600, 90_000, 2_592_000)
    expected = ["0s", "1m 00s", "1m 01s", "1h 00m", "1d 01h", "30d 00h"]
    assert [format_seconds(one) for one in seconds] == expected
