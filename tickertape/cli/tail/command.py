"""``tickertape tail``: show a live feed in the terminal, and resume it when the connection is lost."""

import asyncio
import math
import random
import ssl
from typing import Any, Final

import orjson
from rich.text import Text
from websockets.exceptions import InvalidHandshake, InvalidURI

from tickertape.cli.tail.diagnosis import explain, explain_status
from tickertape.cli.tail.feeds import Feed, FeedClosed, FeedRejected, open_feed
from tickertape.cli.tail.format import format_event
from tickertape.cli.tail.relay_client import is_encrypted, tls_context
from tickertape.cli.tail.settings import TailSettings, build_url, read_cursor
from tickertape.cli.tail.token import HINT, NoTokenError, TokenSource
from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode, Reconnect
from tickertape.contracts.messages import HEARTBEAT_MS
from tickertape.errors import ConfigurationError
from tickertape.net.outgoing import InvalidHostName, describe_failure
from tickertape.process import shutdown
from tickertape.process.console import print_json, print_notice
from tickertape.process.files import replace_text
from tickertape.process.signals import stop_on_signals
from tickertape.process.standard_streams import ReaderGone
from tickertape.process.tasks import run_until_stopped
from tickertape.process.terminal import Terminal
from tickertape.text import count, printable

INITIAL_BACKOFF: Final = 0.5
"""Maximum seconds before the first reconnect; doubles with each attempt."""

MAX_BACKOFF: Final = 20.0
"""Maximum seconds between two attempts to connect."""

SILENCE_TIMEOUT: Final = HEARTBEAT_MS / 1000 + 10
"""Seconds without a message after which the connection counts as lost: one heartbeat plus ten."""

TOKEN_POLL_INTERVAL: Final = 1.0
"""Seconds between two reads of the token file after the relay announced that the token expires."""

STATE_WRITE_INTERVAL: Final = 1.0
"""Minimum seconds between two writes of the state file."""

_CONNECT_ERRORS: Final = (
    OSError,
    InvalidHandshake,
    TimeoutError,
    InvalidURI,
    ValueError,  # a redirect to an invalid address
    AssertionError,  # of websockets 17, when the peer sends something else than HTTP and closes
)
"""Exceptions of a failed attempt to connect."""


async def run(settings: TailSettings) -> int:
    """Print the feed until a signal arrives.

    Returns:
        0 after a signal, 1 if the relay rejects the client permanently.
    """
    try:
        tail = _Tail(settings, tls_context(settings) if is_encrypted(settings.url) else None)
        tail.check_token()
    except ConfigurationError as error:
        print_notice("tail", str(error))
        return 1
    with stop_on_signals(hangup=True) as stop:
        try:
            code = await run_until_stopped(stop.wait(), tail.follow())
        except ReaderGone:
            # Told to end while its reader did not read: the cursor is before what was not printed.
            if not shutdown.received:
                raise
            code = None
        tail.save_cursor()
    if code is not None:
        return code
    if tail.cursor:
        tail.print_status(f"stopped at {tail.cursor}: resume with --cursor {tail.cursor}")
    return 0


class _Tail:
    """Client that follows the feed across connections."""

    def __init__(self, settings: TailSettings, tls: ssl.SSLContext | None) -> None:
        self.cursor = settings.cursor or read_cursor(settings.state_file)
        self._settings = settings
        self._tls = tls
        self._token = TokenSource(settings.token, settings.token_file)
        self._has_token = False
        self._welcomed = False
        self._was_connected = False
        self._truncation_reported = False
        self._token_check_at = math.inf
        self._expires_at = ""
        self._save_at = 0.0
        self._stdout = Terminal(soft_wrap=True)
        self._stderr = Terminal(stderr=True, soft_wrap=True)

    def print_status(self, text: str, style: str = "dim") -> None:
        """Print a status line on standard error."""
        self._stderr.print(Text(printable(text), style))

    def check_token(self) -> None:
        """Read the token, so that a file without one is reported before the first connection.

        Raises:
            NoTokenError: the token is missing or malformed.
        """
        self._token.read()

    def save_cursor(self) -> None:
        """Write the cursor to the state file atomically."""
        file = self._settings.state_file
        if file is not None and self.cursor:
            replace_text(file, f"{self.cursor}\n")

    async def follow(self) -> int:
        """Connect and print the feed; reconnect until the relay rejects the client permanently."""
        wait = INITIAL_BACKOFF
        while True:
            delay = random.uniform(0, wait)  # noqa: S311 - jitter, not cryptography
            try:
                ended = await self._session()
                if ended is None:
                    continue
                code, reason, retry_ms = ended
                if code == CloseCode.UNAUTHORIZED and self._token.changed():
                    continue
                rule = CLOSE_CODES.get(CloseCode(code)) if code in list(CloseCode) else None
                if code == CloseCode.UNAUTHORIZED or (code == CloseCode.TIMEOUT and self._unauthenticated):
                    return self._report_auth_failure(reason)
                if rule is not None and rule.reconnect is Reconnect.NEVER:
                    self.print_status(
                        f"tickertape tail: the relay closed the connection with {code}: {reason}", "red"
                    )
                    return 1
                if retry_ms is not None:
                    delay = retry_ms / 1000
                wait = INITIAL_BACKOFF
                self.print_status(f"-- connection closed ({code} {reason}); reconnecting in {delay:.1f} s")
            except NoTokenError as error:
                self.print_status(f"tickertape tail: {error}", "red")
                return 1
            except FeedRejected as error:
                text = error.text[:200]
                if error.status == 401:
                    if self._token.changed():
                        continue
                    return self._report_auth_failure(text)
                self.print_status(
                    f"tickertape tail: connection rejected: {error.status} {text}"
                    f"{explain_status(error.status, self._settings.url)}",
                    "red",
                )
                if error.status not in (429, 502, 503, 504):
                    return 1
            except ssl.SSLCertVerificationError as error:
                self.print_status(
                    f"tickertape tail: the certificate of {self._settings.url} is not trusted: "
                    f"{error.verify_message}; set --ca to the CA that signed it",
                    "red",
                )
                return 1
            except (InvalidHostName, UnicodeError):
                self.print_status(
                    f"tickertape tail: {self._settings.url} contains an invalid host name", "red"
                )
                return 1
            except _CONNECT_ERRORS as error:
                # Otherwise nothing listens, or the port was right before and is only unreachable.
                examine = not self._was_connected and not isinstance(error, ConnectionRefusedError)
                if examine and (problem := await explain(self._settings.url)) is not None:
                    self.print_status(f"tickertape tail: {self._settings.url}: {problem}", "red")
                    return 1
                cause = describe_failure(error)
                self.print_status(
                    f"-- {self._settings.url} unreachable: {cause}; reconnecting in {delay:.1f} s"
                )
            await asyncio.sleep(delay)
            wait = min(MAX_BACKOFF, wait * 2)

    @property
    def _unauthenticated(self) -> bool:
        """Whether the last connection sent no token and started no session."""
        return not self._has_token and not self._welcomed

    def _report_auth_failure(self, reason: str) -> int:
        message = (
            f"the relay rejected the token: {reason}" if self._has_token else "the relay requires a token"
        )
        self.print_status(f"tickertape tail: {message}; {HINT}", "red")
        return 1

    async def _session(self) -> tuple[int, str, int | None] | None:
        """Follow the feed until the connection ends.

        Returns:
            Code, reason and milliseconds to wait; None to connect again, with another token.
        """
        bye: tuple[int, str, int | None] | None = None
        token = self._token.read()
        self._has_token, self._welcomed, self._token_check_at = token is not None, False, math.inf
        now = asyncio.get_running_loop().time
        async with open_feed(build_url(self._settings, self.cursor), token, self._tls) as feed:
            self._was_connected = True
            last_received = now()
            while True:
                if now() >= self._token_check_at and not await self._renew(feed, now()):
                    return None
                wait = min(last_received + SILENCE_TIMEOUT, self._token_check_at) - now()
                try:
                    # Not wait_for: in Python 3.11 it drops a cancellation that arrives with a message.
                    async with asyncio.timeout(max(0.0, wait)):
                        message = await feed.receive()
                except TimeoutError:
                    if now() < last_received + SILENCE_TIMEOUT:
                        continue
                    return CloseCode.TIMEOUT, "no message received", None
                except FeedClosed as closed:
                    return bye or (closed.code, closed.reason, None)
                last_received = now()
                if message["type"] == "bye":
                    bye = (message["code"], message["reason"], message["retry_after_ms"])
                self._handle_status(message, last_received)
                self._show(message)

    async def _renew(self, feed: Feed, now: float) -> bool:
        """Send the token of the file to the relay if it has changed.

        Returns:
            False if that needs another connection.
        """
        token = self._token.changed()
        if token is None:
            if self._expires_at:
                self.print_status(
                    f"-- the token expires at {self._expires_at}; write a new one to {self._token.file}",
                    "yellow",
                )
            self._expires_at = ""
            self._token_check_at = now + TOKEN_POLL_INTERVAL
            return True
        self._token_check_at = math.inf
        return await feed.renew(token)

    def _handle_status(self, message: dict[str, Any], now: float) -> None:
        """Process messages about the session and the token."""
        kind = message["type"]
        if kind == "welcome":
            self._welcomed = True
        elif kind == "token_expiring":
            if self._token.file is None:
                self.print_status(
                    f"-- the token expires at {message['expires_at']}; use --token-file to renew it", "yellow"
                )
            else:
                self._expires_at, self._token_check_at = message["expires_at"], now
        elif kind == "error" and message["ref"] == "auth" and message["code"] == "unavailable":
            self._token.forget()
            self._token_check_at = now + TOKEN_POLL_INTERVAL

    def _show(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("events", "snapshot"):
            for item in message["events"]:
                self._print_event(item)
            if message.get("truncated") and not self._truncation_reported:
                self._truncation_reported = True
                missing = ", ".join(f"{n} of {family}" for family, n in message["truncated_by"].items())
                self.print_status(
                    f"-- the snapshot lacks {count(message['truncated'], 'state')} ({missing}): "
                    "there are more than a relay holds",
                    "yellow",
                )
        elif kind == "gap":
            lost = message["dropped"]
            loss = "an unknown number of events lost" if lost is None else f"{count(lost, 'event')} skipped"
            self.print_status(
                f"-- {loss} ({message['reason']}): {message['from']} to {message['to']}", "yellow"
            )
        elif kind == "upstream":
            disconnected = message["state"] != "connected"
            self.print_status(
                "-- the relay is disconnected from NATS"
                if disconnected
                else "-- the relay is connected to NATS again"
            )
        elif kind == "error" and message["code"] not in ("unauthorized", "timeout"):
            # These two are reported by the `bye` message.
            self.print_status(f"-- {message['code']}: {message['message']}", "red")
        # A gap may end after events that are still to come, so its end is a valid cursor only after a reset.
        cursor = message.get("to") if message.get("reason") == "reset" else message.get("cursor")
        if cursor:
            self.cursor = cursor
            now = asyncio.get_running_loop().time()
            if now >= self._save_at:
                # After a crash, events since the last write are shown again; a regular exit writes too.
                self._save_at = now + STATE_WRITE_INTERVAL
                self.save_cursor()

    def _print_event(self, item: dict[str, Any]) -> None:
        if self._settings.json:
            print_json(orjson.dumps(item))
        else:
            self._stdout.print(format_event(item))
