"""Reports of denied permissions, and the operations that they fail."""

import asyncio

import pytest

from tickertape.nats.errors import PermissionDenied
from tickertape.nats.wire.denials import PendingOperations, Report, parse_report


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ('Permissions Violation for Publish to "log.INFO.x"', ("publish", "log.INFO.x", None)),
        ('Permissions Violation for Publish with Reply of "a.b"', ("publish", "a.b", None)),
        ('Permissions Violation for Subscription to "a.>"', ("subscription", "a.>", None)),
        ('Permissions Violation for Subscription to "a" using queue "q"', ("subscription", "a", None)),
        ('Permissions Violation for Subscription to "a.*" (sid "17")', ("subscription", "a.*", 17)),
        ('Permissions Violation for Publish to "a"b"', ("publish", 'a"b', None)),
        ('Permissions Violation for Publish to "de\\"ni\'ed\\\\"', ("publish", "de\"ni'ed\\", None)),
        ('Permissions Violation for Publish to "a\\x0b\\xff\\u00ad"', ("publish", "a\x0b\udcff\u00ad", None)),
        ('Permissions Violation for Publish to "a" (sid "x")"', ("publish", 'a" (sid "x")', None)),
        ("Permissions Violation", ("", "", None)),
    ],
)
def test_a_report_names_action_and_subject(text: str, report: tuple[str, str, int | None]) -> None:
    """The subject is that of the message, without the quoting of the server."""
    assert parse_report(text) == Report(*report)


def test_a_report_fails_what_waits_for_its_subject() -> None:
    """Only the operations of that subject fail, and none remains in memory when it is done."""

    async def main() -> None:
        loop, pending = asyncio.get_running_loop(), PendingOperations()
        first, second, third, other = (loop.create_future() for _ in range(4))
        pending.add("a", first)
        pending.add("a", second)
        pending.add("a", third)
        pending.add("b", other)
        second.set_result(None)
        error = PermissionDenied("publish", "a", "NATS user 'x'")
        assert pending.fail("a", error.copy)
        assert not pending.fail("c", error.copy)
        assert str(first.exception()) == str(third.exception()) == str(error)
        assert first.exception() is not third.exception()  # each is raised with its own traceback
        assert not other.done()
        other.cancel()
        with pending.watch(["a", "b", "a"]) as watched:
            assert pending.fail("b", error.copy)
            assert str(watched.exception()) == str(error)
        with pending.watch(["a"]) as unused:
            pass
        assert unused.cancelled()
        await asyncio.sleep(0)
        assert len(pending) == 0

    asyncio.run(main())


def test_a_denied_permission_is_explained() -> None:
    """The error names user, action and subject without control characters, and the option for an inbox."""
    error = PermissionDenied("publish", "a\x1b.b", "NATS user 'x'")
    assert str(error) == (
        "NATS user 'x' may not publish to \"a\\x1b.b\"; "
        "grant it publish permission as in deploy/nats/permissions.conf"
    )
    inbox = PermissionDenied("subscribe", "_INBOX.>", "NATS user 'x'", inbox=True)
    assert inbox.message == "NATS user 'x' may not subscribe to \"_INBOX.>\""
    assert "--nats-inbox-prefix" in inbox.hint
    assert str(inbox.copy()) == str(inbox)
