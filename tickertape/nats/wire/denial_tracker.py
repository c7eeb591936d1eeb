"""Denied permissions of a client: relates the reports of the server to the operations that wait for a reply.

A server reports a denied message or subscription by its subject alone, and sends no reply. nats-py passes the
report to a callback, and the caller waits until its timeout.

Invariants:

1. A request whose subject or inbox is denied fails immediately with ``PermissionDenied``. No request is sent
   while its inbox is denied, because its effect could not be confirmed.
2. A denied subscription is repeated until NATS grants it or it is unsubscribed, so that programs work again
   without a restart. A server that reloads its permissions ends subscriptions, and does not restore them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from nats.errors import Error as NatsError

from tickertape.nats.errors import PermissionDenied
from tickertape.nats.wire.denials import PendingOperations, Report

RESUBSCRIBE_INTERVAL: Final = 2.0
"""Seconds between two attempts to repeat denied subscriptions; the server logs each of them."""


class TrackedClient(Protocol):
    """Client whose denials are tracked."""

    @property
    def is_closed(self) -> bool: ...

    @property
    def is_connected(self) -> bool: ...

    def inbox_prefix(self) -> str:
        """Return the first tokens of all inboxes."""

    def request_inbox(self) -> str:
        """Return the subject on which the replies to all requests arrive."""

    def pending_requests(self) -> "Sequence[asyncio.Future[Any]]":
        """Return the futures of the requests that wait for a reply."""

    def subscribed_subjects(self) -> Mapping[int, str]:
        """Return the subject of each subscription by its id."""

    async def repeat_subscription(self, sid: int) -> None:
        """Send a subscription again, unless it has ended."""

    async def flush(self) -> None:
        """Wait until the server has processed everything."""


class DenialTracker:
    """Denied permissions of one client.

    Args:
        client: the client.

    Attributes:
        listeners: called with each denied permission; return whether they have reported it.
        pending: operations that wait for a reply, by subject.
    """

    def __init__(self, client: TrackedClient) -> None:
        self.listeners: list[Callable[[PermissionDenied], bool]] = []
        self.pending: Final = PendingOperations()
        self._client = client
        self._denied: dict[int, PermissionDenied] = {}  # by subscription id
        self._reported: set[int] = set()  # those reported since they were last repeated
        self._repeating: asyncio.Task[None] | None = None

    @property
    def has_subscriptions(self) -> bool:
        """Whether NATS denies a subscription of this client at the moment."""
        return bool(self._denied)

    def find(self, subject: str) -> PermissionDenied | None:
        """Return the error of a subscription that NATS denies at the moment; None if it does not."""
        if not self._denied:
            return None
        subjects = self._client.subscribed_subjects()
        for sid, denied in self._denied.items():
            if subjects.get(sid) == subject:
                return denied.copy()
        return None

    def handle(self, report: Report, user: str) -> PermissionDenied:
        """Fail the operations that a report concerns, pass it to the listeners, and return its error.

        Args:
            report: report of the server.
            user: how this program authenticated.
        """
        client, prefix = self._client, self._client.inbox_prefix()
        inbox = report.subject.startswith(f"{prefix}.")
        # The rest of an inbox is random: one program's inboxes are denied together.
        subject = f"{prefix}.>" if inbox else report.subject
        if report.action.startswith("sub"):
            denied = PermissionDenied("subscribe", subject, user, inbox=inbox)
            self._record(report, denied)
            requests = client.pending_requests() if report.subject == client.request_inbox() else ()
            for future in [future for future in requests if not future.done()]:
                future.set_exception(denied.copy())
                denied.reported = True
        else:
            denied = PermissionDenied("publish", subject, user, inbox=inbox)
        denied.reported |= self.pending.fail(report.subject, denied.copy)
        for listener in self.listeners:
            denied.reported |= listener(denied)
        return denied

    def forget(self) -> None:
        """Forget denied subscriptions: a new connection repeats all, and reports those that it denies."""
        self._denied.clear()

    def stop(self) -> None:
        """Stop repeating subscriptions, because the client is closing."""
        if self._repeating is not None:
            self._repeating.cancel()

    def _record(self, report: Report, denied: PermissionDenied) -> None:
        for sid, subject in self._client.subscribed_subjects().items():
            if sid == report.sid or (report.sid is None and subject == report.subject):
                self._denied[sid] = denied
                self._reported.add(sid)
        if self._denied and (self._repeating is None or self._repeating.done()):
            self._repeating = asyncio.create_task(self._repeat(), name="denied subscriptions")

    async def _repeat(self) -> None:
        """Send denied subscriptions again until NATS grants them, which it does silently."""
        client = self._client
        while self._denied and not client.is_closed:
            await asyncio.sleep(RESUBSCRIBE_INTERVAL)
            if not client.is_connected:
                continue
            self._reported.clear()
            # The connection is lost; the next one repeats all subscriptions.
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                for sid in list(self._denied):
                    await client.repeat_subscription(sid)
                # The server reports those that it still denies before its PONG.
                await client.flush()
                for sid in [sid for sid in self._denied if sid not in self._reported]:
                    del self._denied[sid]


__all__ = ["DenialTracker", "TrackedClient"]
