"""Messages of the relay, as ``tickertape tail`` shows them."""

import asyncio
from typing import Any

import pytest

from tickertape.cli.tail.command import _Tail
from tickertape.cli.tail.settings import TailSettings


def shown(capsys: pytest.CaptureFixture[str], *messages: dict[str, Any]) -> tuple[str, str]:
    """Return standard output and standard error after some messages."""

    async def show() -> None:
        tail = _Tail(TailSettings(), None)
        for message in messages:
            tail._show(message)

    asyncio.run(show())
    output = capsys.readouterr()
    return output.out, output.err


def snapshot(**missing: int) -> dict[str, Any]:
    """Return the last message of a snapshot."""
    return {
        "type": "snapshot", "events": [], "cursor": "a-1", "more": False, "truncated": sum(missing.values()),
        "truncated_by": {name.replace("_", "."): n for name, n in missing.items()},
    }  # fmt: skip


def test_missing_states_are_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated snapshot is reported on standard error, and not again after each reconnect."""
    first = snapshot(gateway_status=2, system_health=4_000)
    out, err = shown(capsys, snapshot(), first, snapshot(system_health=1))
    assert out == ""
    assert err == (
        "-- the snapshot lacks 4002 states (2 of gateway.status, 4000 of system.health): "
        "there are more than a relay holds\n"
    )


def test_a_complete_snapshot_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a complete snapshot nor one of an earlier relay, without the fields, prints anything."""
    earlier = {"type": "snapshot", "events": [], "cursor": "a-1", "more": False}
    assert shown(capsys, snapshot(), earlier) == ("", "")
