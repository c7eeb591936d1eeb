"""A link's connection to NATS: opened in the background, with one inbox for all answers, and its state.

Invariants:

1. Waiting for NATS never ends by itself; what no waiting helps ends it, and then ``fatal`` says so.
2. A new connection is told once, since the old one may have lost what was on its way.
3. Who brought a client closes it.
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
from tickertape.producers.sdk.ack_window import InFlightEvent
from tickertape.producers.sdk.drop_report import LOGGER
from tickertape.producers.sdk.errors import PublishError

from tickertape.errors import OperatorError
from tickertape.nats import connection
from tickertape.nats.connect_errors import unreachable
from tickertape.nats.credentials import Access
from tickertape.urls import redact_url

SOCKET_BACKLOG: Final = 1024 * 1024
"""Bytes that may wait for the socket before the sweep takes over sending. nats-py waits for the socket beyond
2 MiB, and swallows a cancellation while it does: a caller must never wait there."""


_log = logging.getLogger(LOGGER)


class Connection:
    """Arguments as of ``Publisher``.

    Attributes:
        client: None until there is one.
        inbox: first tokens of the reply subjects.
        failure: why NATS is not reached; None while it is.
        trouble: what was heard last over a connection that is there; empty while all is well.
        fatal: set when there will never be a connection.
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
        self.trouble = ""
        self.fatal: Exception | None = None
        self._access = access
        self._owns_client = client is None
        self._on_down = on_down
        self._on_up = on_up
        self._subscription: Subscription | None = None
        self._reconnects = 0
        self._ready = asyncio.Event()  # set at the first connection, and when there will be none
        self._closed = False

    def __repr__(self) -> str:
        return f"<Connection {redact_url(self.url)} {'online' if self.online else 'offline'}>"

    @property
    def online(self) -> bool:
        """True while NATS is reached."""
        return self._subscription is not None and self.client is not None and self.client.is_connected

    def can_take(self, size: int) -> bool:
        """Tell whether an event can be handed over without waiting, and in its turn."""
        if self._subscription is None or self.client is None or not self.client.is_connected:
            return False
        # A new connection first gets what the old one may have lost.
        return (
            self.client.stats["reconnects"] == self._reconnects
            and self.client.pending_data_size + size < SOCKET_BACKLOG
        )

    def renewed(self) -> bool:
        """Tell, once, that the connection was made anew."""
        if self.client is None or self.client.stats["reconnects"] == self._reconnects:
            return False
        self._reconnects = self.client.stats["reconnects"]
        return True

    async def ready(self) -> Client:
        """Wait until NATS was reached; raises when it never will be."""
        await self._ready.wait()
        if self.fatal is not None:
            raise self.fatal
        assert self.client is not None
        return self.client

    async def open(self, answered: Callable[[Msg], Awaitable[None]]) -> None:
        """Connect, for as long as it takes, and subscribe to the inbox; look at ``fatal`` afterwards.

        Args:
            answered: gets each answer.
        """
        try:
            if self.client is None:
                self.client = await connection.connect(
                    self.url,
                    name=self.name,
                    access=self._access,
                    on_up=self._is_up,
                    on_down=self._is_down,
                    on_error=self._has_trouble,
                )
            client = self.client
            self.inbox = client.new_inbox()
            self._reconnects = client.stats["reconnects"]
            self._subscription = await client.subscribe(f"{self.inbox}.*", cb=answered)
        except (OSError, ValueError, NatsError) as error:
            # Waiting for NATS is nats-py's own business; what ends here is no matter of waiting.
            self.fatal = error
        self._ready.set()

    def gave_up(self, entry: InFlightEvent[Any], seconds: float) -> PublishError:
        """Make the error of an event whose deadline has passed."""
        if not self.online:
            failure = self.failure or unreachable(self.url, "not connected")
            return PublishError(
                entry.subject, f"not sent within {seconds:g} s: {failure.message}", failure.hint
            )
        tries = f"for {seconds:g} s and {entry.tries} tries"
        if entry.refusal is not None:
            return PublishError(entry.subject, f"{entry.refusal.message}, {tries}", entry.refusal.hint)
        trouble = f" ({self.trouble})" if self.trouble else ""
        return PublishError(
            entry.subject,
            f"no answer from JetStream {tries}{trouble}",
            "look at the server's log, and at the permissions of this user",
        )

    def no_link(self, subject: str) -> PublishError:
        """Make the error of an event that cannot be sent at all."""
        if isinstance(self.fatal, OperatorError):
            return PublishError(subject, self.fatal.message, self.fatal.hint)
        if self.fatal is not None:
            return PublishError(subject, str(self.fatal), "check the address")
        return PublishError(subject, "the publisher is closed", "keep it open until everything is published")

    def no_news(self) -> None:
        """From now on, do not tell that NATS is away: the program is closing."""
        self._closed = True

    async def close(self) -> None:
        """Leave the inbox, and close the client if it is our own."""
        if self._subscription is not None and self.client is not None and self.client.is_connected:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()
        if self._owns_client and self.client is not None:
            await connection.close(self.client)

    async def _is_up(self) -> None:
        self.failure, self.trouble = None, ""
        if self._on_up:
            self._on_up()

    async def _is_down(self, failure: connection.ConnectFailure) -> None:
        self.failure = failure
        if self._on_down and not self._closed:
            self._on_down(failure)
        elif not failure.kind.is_transient and not self._closed:
            # A program that looks at nothing but its log must not wait without a word.
            _log.error("%s: %s", self.name, failure.retry_message)

    async def _has_trouble(self, error: Exception) -> None:
        self.trouble = str(error) or type(error).__name__
