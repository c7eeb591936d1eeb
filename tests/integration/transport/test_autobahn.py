"""The cases of the Autobahn test suite against the relay's WebSocket layer, run by kosoku.

Families 1 to 7 and 10 are 247 cases. Family 9 is about speed and size; its cases with text run with
``CHAOS=full``. Families 12 and 13, compression, fail in kosoku 0.1.0 itself: "Strings must be
encoded before hashing". ``test_relay_messages.py`` covers compression.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Final

import pytest
from kosoku import FailureError, run_fuzzingclient
from kosoku._kosoku import CaseResult

from tests.support.programs.echo_relay import echo_relay

CASES: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
LARGE: Final = ("9.1.*", "9.3.*", "9.5.*", "9.7.*")
"""The cases of family 9 with text."""

COUNT: Final = 247
AT_ONCE: Final = 4
FULL: Final = os.environ.get("CHAOS") == "full"

PASSED: Final = ("OK", "OK")
BINARY: Final = (("FAILED", "FAILED"), "a binary message: 1003, the feed is text")
LATE: Final = (
    ("NON-STRICT", "OK"),
    "bad UTF-8 is refused when its message is whole, not at the first wrong byte; 1007 either way",
)
TOO_LARGE: Final = (("FAILED", "FAILED"), "4 MiB or more: 1009, a message has 1 MiB at most")
UNDEFINED: Final = (
    ("INFORMATIONAL", "INFORMATIONAL"),
    "RFC 6455 leaves it open, and Autobahn gives no verdict",
)

EXCEPTIONS: Final[dict[str, tuple[tuple[str, str], str]]] = {
    **{f"1.2.{number}": BINARY for number in range(1, 9)},
    **{f"6.4.{number}": LATE for number in range(1, 5)},
    "7.1.6": UNDEFINED,
    "7.13.1": UNDEFINED,
    "7.13.2": UNDEFINED,
    **{f"9.1.{number}": TOO_LARGE for number in range(4, 7)},
    **{f"9.3.{number}": TOO_LARGE for number in range(1, 10)},
}
"""Cases with another verdict than a plain pass (of the messages, of the close), and why that is correct."""

CLOCK_EVENTS: Final = {"KLE", "TIE"}
"""Entries in a case's log that show that a timeout of kosoku ended it."""


async def verdicts(cases: Sequence[str]) -> dict[str, CaseResult]:
    """Run cases; those that hit a timeout of kosoku, some of half a second, are run again on their own.

    A busy machine is no protocol fault; a relay that does not respond hits the timeout each time.
    """
    async with echo_relay() as url:
        found = {one.case_id: one for one in await run(url, cases, AT_ONCE)}
        for _ in range(5):
            late = [name for name, one in found.items() if verdict(one) != expected(name) and timed_out(one)]
            for name in late:
                found[name] = (await run(url, [name], 1))[0]
    return found


async def run(url: str, cases: Sequence[str], at_once: int) -> list[CaseResult]:
    """Run cases, whether they pass or not."""
    try:
        return await run_fuzzingclient(url, cases, concurrency=at_once)
    except FailureError as failure:
        return list(failure.results)


def verdict(result: CaseResult) -> tuple[str, str]:
    """Return the verdict of the messages and of the close."""
    return result.behavior.value, result.behavior_close.value


def expected(name: str) -> tuple[str, str]:
    """Return the verdict that a case should have."""
    return EXCEPTIONS[name][0] if name in EXCEPTIONS else PASSED


def timed_out(result: CaseResult) -> bool:
    """Return whether a timeout of kosoku ended a case."""
    return (
        result.was_close_handshake_timeout
        or result.was_open_handshake_timeout
        or result.was_server_connection_drop_timeout
        or any(entry[0] in CLOCK_EVENTS for entry in result.wirelog)
    )


@pytest.mark.parametrize(
    ("cases", "count"),
    [
        (CASES, COUNT),
        pytest.param(LARGE, 27, marks=pytest.mark.skipif(not FULL, reason="CHAOS=full")),
    ],
    ids=["protocol", "size and speed"],
)
def test_every_case_has_its_verdict(cases: Sequence[str], count: int) -> None:
    """Each case passes or has the listed verdict; a listed case that passes must be removed from the
    table.
    """
    found = asyncio.run(verdicts(cases))
    assert len(found) == count
    wrong = {
        name: (*verdict(one), one.result, one.result_close, one.remote_close_code, one.remote_close_reason)
        for name, one in found.items()
        if verdict(one) != expected(name)
    }
    assert wrong == {}
    assert all(EXCEPTIONS[name][1] for name in found if name in EXCEPTIONS)
    for name in (name for name in found if EXCEPTIONS.get(name) is BINARY):
        assert found[name].remote_close_code == 1003
    for name in (name for name in found if EXCEPTIONS.get(name) is TOO_LARGE):
        assert found[name].remote_close_code == 1009
