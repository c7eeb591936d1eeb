"""A publisher's connection to NATS: opened in the background, with a single inbox for all replies.

Invariants:

1. Connecting is retried without limit, except after an error that no retry can fix: that sets ``fatal``.
2. A reconnect is reported exactly once, because the previous connection may have lost what it was sending.
3. A client that the caller passes in is closed by the caller.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, OutboundBufferLimitError
from tickertape.producers.sdk.ack_window import InFlightEvent
from tickertape.producers.sdk.drop_report import LOGGER
from tickertape.producers.sdk.errors import PublishError, closed_error
from tickertape.producers.sdk.publish_ack import TransientFailure

from tickertape.errors import OperatorError
from tickertape.nats import connection
from tickertape.nats.client import SafeClient
from tickertape.nats.connect_errors import PermissionsViolation, parse_server_error, unreachable
from tickertape.nats.credentials import Access
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL, Action, PermissionDenied
from tickertape.nats.storage.problems import NO_REPLY, NO_REPLY_HINT
from tickertape.rate_limit import RepeatFilter
from tickertape.text import count
from tickertape.urls import redact_url

SOCKET_BACKLOG: Final = 1024 * 1024
"""Bytes buffered for the socket above which sending is left to the sweep. Above 2 MiB, nats-py waits for the
socket and swallows cancellations while it does, so a caller must never get that far.
"""

_log = logging.getLogger(LOGGER)


class Connection:
    """Connection of a publisher to NATS, with the arguments of ``Publisher``.

    Attributes:
        client: NATS client; None until the first connection.
        inbox: first tokens of the reply subjects.
        failure: reason why NATS is unreachable; None while connected.
        last_error: last error reported over the current connection; empty if there is none.
        fatal: error that makes a connection impossible; None as long as connecting is retried.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None,
        name: str,
        client: Client | None,
        on_down: Callable[[connection.ConnectFailure], None] | None,
        on_up: Callable[[], None] | None,
    ) -> None:
        self.url = url
        self.name = name
        self.client = client
        self.inbox = ""
        self.failure: connection.ConnectFailure | None = None
        self.last_error = ""
        self.fatal: Exception | None = None
        self._access = access
        self._owns_client = client is None
        self._on_down = on_down
        self._on_up = on_up
        self._subscription: Subscription | None = None
        self._reconnects = 0
        self._last_violation: Exception | None = None
        self._on_denied: Callable[[PermissionDenied], bool] = lambda _: False
        self._denials = RepeatFilter(DENIAL_REPORT_INTERVAL)
        self._ready = asyncio.Event()  # set by the first connection, and by a fatal error
        self._muted = False

    def __repr__(self) -> str:
        return f"<Connection {redact_url(self.url)} {'online' if self.online else 'offline'}>"

    @property
    def online(self) -> bool:
        """Whether NATS is connected and replies can be received."""
        if self._subscription is None or self.client is None or not self.client.is_connected:
            return False
        return self._denied_inbox is None

    def can_send_now(self, size: int) -> bool:
        """Return whether an event can be sent without waiting for the socket or overtaking resends."""
        if not self.online or self.client is None:
            return False
        # After a reconnect, resends go first.
        return (
            self.client.stats["reconnects"] == self._reconnects
            and self.client.pending_data_size + size < SOCKET_BACKLOG
        )

    def take_reconnect(self) -> bool:
        """Return whether the client has reconnected since the last call."""
        if self.client is None or self.client.stats["reconnects"] == self._reconnects:
            return False
        self._reconnects = self.client.stats["reconnects"]
        return True

    async def ready(self) -> Client:
        """Wait for the first connection, and return its client; raise the fatal error if there is one."""
        await self._ready.wait()
        if self.fatal is not None:
            raise self.fatal
        assert self.client is not None
        return self.client

    async def open(
        self,
        on_reply: Callable[[Msg], Awaitable[None]],
        on_denied: Callable[[PermissionDenied], bool],
    ) -> None:
        """Connect, for as long as it takes, and subscribe to the inbox; the caller then checks ``fatal``.

        Args:
            on_reply: called with each reply.
            on_denied: called with each permission that NATS denies; returns whether an event failed with it.
        """
        try:
            if self.client is None:
                self.client = await connection.connect(
                    self.url,
                    name=self.name,
                    access=self._access,
                    on_up=self._handle_up,
                    on_down=self._handle_down,
                    on_error=self._handle_error,
                )
            client = self.client
            self._on_denied = on_denied
            if isinstance(client, SafeClient):
                client.denials.listeners.append(on_denied)
            self.inbox = client.new_inbox()
            # Before the subscription: a reconnect during it must be noticed later.
            self._reconnects = client.stats["reconnects"]
            subscription = await client.subscribe(f"{self.inbox}.*", cb=on_reply)
            # A denied inbox must be known before the first event, which would be stored without an
            # acknowledgement; the round trip ends after the report.
            with contextlib.suppress(NatsError, TimeoutError):
                await client.flush()
            self._subscription = subscription
        except (OSError, ValueError, NatsError) as error:
            # connect() retries while NATS is unreachable; what it raises cannot be fixed by a retry.
            self.fatal = error
        self._ready.set()

    def concerns(self, denied: PermissionDenied, event: InFlightEvent[Any]) -> bool:
        """Return whether an event cannot be acknowledged because of a denied permission."""
        if denied.action == "publish":
            return denied.subject == event.subject
        # The error of an inbox names only its prefix, which other inboxes of the client share.
        return denied.inbox and (self._subscription is None or self._denied_inbox is not None)

    @property
    def _denied_inbox(self) -> PermissionDenied | None:
        """Error of the inbox, while NATS denies it."""
        client = self.client
        if not isinstance(client, SafeClient) or not client.denials.has_subscriptions:
            return None
        return client.denials.find(f"{self.inbox}.*")

    def poll_denials(self) -> None:
        """Report the inbox while NATS denies it, and what a client of another class has recorded.

        Such a client only records its last error.
        """
        client = self.client
        if (denied := self._denied_inbox) is not None:
            self._on_denied(denied)
        elif client is not None and not isinstance(client, SafeClient):
            if (error := client.last_error) is self._last_violation:
                return
            self._last_violation = error
            violation = parse_server_error(str(error).removeprefix("nats: "))
            if isinstance(violation, PermissionsViolation) and violation.report.subject:
                action: Action = "subscribe" if violation.report.action == "subscription" else "publish"
                user = "the NATS user of this client"
                self._on_denied(PermissionDenied(action, violation.report.subject, user))

    def publish_failure(self, event: InFlightEvent[Any], error: NatsError) -> TransientFailure | PublishError:
        """Return the meaning of an error of the client's ``publish``: whether to resend, or why not."""
        if isinstance(error, OutboundBufferLimitError):
            return TransientFailure("NATS is unreachable")
        if isinstance(error, MaxPayloadError):
            message = f"its {len(event.payload)} bytes exceed the maximum payload of the NATS server"
            return PublishError(event.subject, message, "raise max_payload in the server")
        if self.client is None or self.client.is_closed or not self.client.is_connected:
            return TransientFailure(str(error))
        message = f"the NATS client rejected it: {error}"
        return PublishError(event.subject, message, "check its subject and headers")

    def deadline_error(self, event: InFlightEvent[Any], seconds: float) -> PublishError:
        """Return the error of an event whose deadline has passed.

        Args:
            event: event that is given up.
            seconds: time it had, for the message.
        """
        if not self.online:
            failure = self.failure or unreachable(self.url, "not connected")
            return PublishError(
                event.subject, f"not sent within {seconds:g} s: {failure.message}", failure.hint
            )
        attempts = f"{count(event.attempts, 'attempt')} in {seconds:g} s"
        message, hint = self.last_failure(event)
        return PublishError(event.subject, f"{message} ({attempts})", hint)

    def last_failure(self, event: InFlightEvent[Any]) -> tuple[str, str]:
        """Return message and hint for the last attempt to send an event over this connection."""
        if event.failure is not None:
            return event.failure.message, event.failure.hint
        if self.last_error:
            return (
                f"no reply from JetStream, last error: {self.last_error}",
                "check the log of the server and, behind a leaf node, of the hub",
            )
        return NO_REPLY, NO_REPLY_HINT

    def unavailable_error(self, subject: str) -> PublishError:
        """Return the error of an event that cannot be sent, because of a fatal error or after a close."""
        if isinstance(self.fatal, OperatorError):
            return PublishError(subject, self.fatal.message, self.fatal.hint)
        if self.fatal is not None:
            return PublishError(subject, str(self.fatal), "check the address of NATS")
        return closed_error(subject)

    def mute(self) -> None:
        """Stop reporting that NATS is unreachable: the publisher is closing."""
        self._muted = True

    async def close(self) -> None:
        """Unsubscribe from the inbox, and close the client unless the caller passed it in."""
        if self._subscription is not None and self.client is not None and self.client.is_connected:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()
        if self._owns_client and self.client is not None:
            await connection.close(self.client)

    async def _handle_up(self) -> None:
        self.failure, self.last_error = None, ""
        if self._on_up:
            self._on_up()

    async def _handle_down(self, failure: connection.ConnectFailure) -> None:
        self.failure = failure
        if self._on_down and not self._muted:
            self._on_down(failure)
        elif not failure.kind.is_transient and not self._muted:
            # Without a callback, only the log can tell the operator why the program is waiting.
            _log.error("%s: %s", self.name, failure.retry_message)

    async def _handle_error(self, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__
        if not isinstance(error, PermissionDenied) or error.reported:
            return
        # Nothing waits for it, as for a message without an acknowledgement.
        if self._denials.allow(str(error), asyncio.get_running_loop().time()):
            _log.error("%s: %s", self.name, error)
