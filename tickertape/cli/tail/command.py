"""``tickertape tail``: a live feed in the terminal, which goes on where it was when the link breaks."""

import asyncio
import contextlib
import math
import random
import ssl
import sys
import warnings
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console
from rich.text import Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from tickertape.cli.tail.format import format_event
from tickertape.cli.tail.token import HINT, NoTokenError, TokenSource
from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode, Reconnect
from tickertape.contracts.messages import HEARTBEAT_MS, MAX_MESSAGE_BYTES, SUBPROTOCOL
from tickertape.process.console import print_notice
from tickertape.process.signals import stop_on_signals
from tickertape.process.tasks import run_until_stopped
from tickertape.text import printable
from tickertape.urls import parse_url

INITIAL_BACKOFF: Final = 0.5
MAX_BACKOFF: Final = 20.0
SILENCE_TIMEOUT: Final = HEARTBEAT_MS / 1000 + 10
"""Seconds of silence after which the link counts as dead: a heartbeat and ten more."""

TOKEN_POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at the token's file, once the relay says that the token ends soon."""

STATE_WRITE_INTERVAL: Final = 1.0
"""Seconds between two writes of the state file."""


with warnings.catch_warnings():
    # `json` is what flag and variable must be called; the method that it hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class TailSettings(BaseSettings):
        """Options of ``tickertape tail``; each also as ``TICKERTAPE_<NAME>``."""

        model_config = SettingsConfigDict(
            env_prefix="TICKERTAPE_", frozen=True, extra="ignore", hide_input_in_errors=True
        )

        url: str = Field("ws://127.0.0.1:8080/ws", description="the relay's feed")
        subjects: str | None = Field(None, description="patterns, with commas; all without it")
        level: str | None = Field(None, description="least level of log events")
        mode: str | None = Field(None, description="live, complete or latest")
        cursor: str | None = Field(None, description="go on after this place")
        state_file: Path | None = Field(
            None, description="keeps the place reached: the next run goes on from there"
        )
        since: str | None = Field(None, description="earliest, a duration such as 10m, or an RFC 3339 time")
        json: bool = Field(False, description="one JSON object per event, for programs")  # type: ignore[assignment]

        token: SecretStr | None = Field(
            None,
            description="what the relay lets in. A process list shows what is given here, so prefer the "
            "variable or the file",
        )
        token_file: Path | None = Field(
            None, description="a file with the same, read again before the token in it ends"
        )
        ca: Path | None = Field(
            None, description="wss: certificates that are trusted, PEM; the system's without it"
        )

        @field_validator("url")
        @classmethod
        def _websocket(cls, value: str) -> str:
            parse_url(value, ("ws", "wss"), "ws://127.0.0.1:8080/ws")
            return value

        @model_validator(mode="after")
        def _trust(self) -> Self:
            if self.ca is not None and urlsplit(self.url).scheme != "wss":
                raise ValueError("ca: ws:// is not encrypted, so there is no certificate; write wss://")
            return self


async def run(settings: TailSettings) -> int:
    """Print the feed until a signal ends it.

    Returns:
        0 after a signal, 1 when the relay refuses for good.
    """
    try:
        secure = urlsplit(settings.url).scheme == "wss"
        trust = ssl.create_default_context(cafile=settings.ca) if secure else None
    except OSError as error:
        reason = error.strerror or "there is none in it"
        print_notice(
            "tail", f"no certificate can be read from {settings.ca}: {reason}; give a PEM file with --ca"
        )
        return 1
    tail = _Tail(settings, trust)
    with stop_on_signals() as stop:
        if (code := await run_until_stopped(stop.wait(), tail.follow())) is not None:
            return code
    tail.keep()
    if tail.cursor:
        tail.print_status(f"at {tail.cursor}: go on with --cursor {tail.cursor}")
    return 0


def build_url(settings: TailSettings, cursor: str | None = None) -> str:
    """Build the address to connect to.

    Args:
        settings: of the program.
        cursor: to go on from; without one the settings say where to start.
    """
    asked = {
        "subjects": settings.subjects,
        "level": settings.level,
        "mode": settings.mode,
        "cursor": cursor,
        "since": None if cursor else settings.since,
    }
    url = urlsplit(settings.url)
    query = urlencode({key: value for key, value in asked.items() if value})
    return urlunsplit(url._replace(query="&".join(filter(None, (url.query, query)))))


class _Tail:
    def __init__(self, settings: TailSettings, trust: ssl.SSLContext | None) -> None:
        self.cursor = settings.cursor or _read_cursor(settings.state_file)
        self._settings = settings
        self._trust = trust
        self._token = TokenSource(settings.token, settings.token_file)
        self._held = False
        self._welcomed = False
        self._look_at = math.inf
        self._ends = ""
        self._keep_at = 0.0
        self._out = Console(highlight=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def print_status(self, text: str, style: str = "dim") -> None:
        """Print a line that is not an event, on standard error."""
        self._notes.print(Text(printable(text), style))

    def keep(self) -> None:
        """Write the place reached to the state file, whole or not at all."""
        file = self._settings.state_file
        if file is not None and self.cursor:
            draft = file.with_name(f"{file.name}.new")
            draft.write_text(f"{self.cursor}\n")
            draft.replace(file)

    async def follow(self) -> int:
        wait = INITIAL_BACKOFF
        while True:
            delay = random.uniform(0, wait)  # noqa: S311 - spreads clients, keeps no secret
            try:
                code, reason, retry_ms = await self._session()
                if code == CloseCode.UNAUTHORIZED and self._token.changed():
                    continue
                rule = CLOSE_CODES.get(CloseCode(code)) if code in list(CloseCode) else None
                if code == CloseCode.UNAUTHORIZED or (code == CloseCode.TIMEOUT and self._unasked):
                    return self._without_token(reason)
                if rule is not None and rule.reconnect is Reconnect.NEVER:
                    self.print_status(f"tickertape tail: the relay closed with {code}: {reason}", "red")
                    return 1
                if retry_ms is not None:
                    delay = retry_ms / 1000
                wait = INITIAL_BACKOFF
                self.print_status(f"-- the relay closed ({code} {reason}); again in {delay:.1f} s")
            except NoTokenError as error:
                self.print_status(f"tickertape tail: {error}", "red")
                return 1
            except InvalidStatus as error:
                body = error.response.body or b""
                text = body.decode(errors="replace")[:200]
                if error.response.status_code == 401:
                    return self._without_token(text)
                self.print_status(
                    f"tickertape tail: the relay refused: {error.response.status_code} {text}", "red"
                )
                if error.response.status_code not in (429, 503):
                    return 1
            except ssl.SSLCertVerificationError as error:
                self.print_status(
                    f"tickertape tail: the certificate of {self._settings.url} is not trusted: "
                    f"{error.verify_message}; name the CA that signed it with --ca",
                    "red",
                )
                return 1
            except UnicodeError:
                self.print_status(f"tickertape tail: the host in {self._settings.url} is no host name", "red")
                return 1
            except (OSError, InvalidHandshake, TimeoutError, InvalidURI) as error:
                what = str(error) or type(error).__name__
                self.print_status(f"-- no relay at {self._settings.url}: {what}; again in {delay:.1f} s")
            await asyncio.sleep(delay)
            wait = min(MAX_BACKOFF, wait * 2)

    @property
    def _unasked(self) -> bool:
        """No token was shown, and no session came of it."""
        return not self._held and not self._welcomed

    def _without_token(self, reason: str) -> int:
        said = f"the relay does not take the token: {reason}" if self._held else "the relay asks for a token"
        self.print_status(f"tickertape tail: {said}; {HINT}", "red")
        return 1

    async def _session(self) -> tuple[int, str, int | None]:
        bye: tuple[int, str, int | None] | None = None
        token = self._token.read()
        self._held, self._welcomed, self._look_at = token is not None, False, math.inf
        now = asyncio.get_running_loop().time
        async with connect(
            build_url(self._settings, self.cursor),
            additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            ssl=self._trust,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            ping_interval=None,
        ) as socket:
            heard = now()
            while True:
                if now() >= self._look_at:
                    await self._renew(socket, now())
                wait = min(heard + SILENCE_TIMEOUT, self._look_at) - now()
                try:
                    # Not wait_for: Python 3.11's forgets a cancellation that comes together with a message.
                    async with asyncio.timeout(max(0.0, wait)):
                        text = await socket.recv(decode=False)
                except TimeoutError:
                    if now() < heard + SILENCE_TIMEOUT:
                        continue
                    return CloseCode.TIMEOUT, "nothing was heard", None
                except ConnectionClosed as closed:
                    close = closed.rcvd
                    return bye or ((close.code, close.reason, None) if close else (1006, "cut off", None))
                heard = now()
                message = orjson.loads(text)
                if message["type"] == "bye":
                    bye = (message["code"], message["reason"], message["retry_after_ms"])
                self._note(message, heard)
                self._show(message)

    async def _renew(self, socket: ClientConnection, now: float) -> None:
        """Go on with the token that the file holds by now, if it is another one."""
        token = self._token.changed()
        if token is None:
            if self._ends:
                self.print_status(
                    f"-- the token ends at {self._ends}; put the next one into {self._token.file}", "yellow"
                )
            self._ends = ""
            self._look_at = now + TOKEN_POLL_INTERVAL
            return
        self._look_at = math.inf
        with contextlib.suppress(ConnectionClosed):
            await socket.send(orjson.dumps({"type": "auth", "token": token}).decode())

    def _note(self, message: dict[str, Any], now: float) -> None:
        """Take in what the relay says of the token."""
        kind = message["type"]
        if kind == "welcome":
            self._welcomed = True
        elif kind == "token_expiring":
            if self._token.file is None:
                self.print_status(
                    f"-- the token ends at {message['expires_at']}; --token-file lets it be renewed", "yellow"
                )
            else:
                self._ends, self._look_at = message["expires_at"], now
        elif kind == "error" and message["ref"] == "auth" and message["code"] == "unavailable":
            self._token.forget()
            self._look_at = now + TOKEN_POLL_INTERVAL

    def _show(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("events", "snapshot"):
            for item in message["events"]:
                self._event(item)
        elif kind == "gap":
            count = message["dropped"]
            what = (
                f"{count} events passed over" if count is not None else "events lost, how many is not known"
            )
            self.print_status(
                f"-- {what} ({message['reason']}): {message['from']} to {message['to']}", "yellow"
            )
        elif kind == "upstream":
            away = message["state"] != "connected"
            self.print_status(
                "-- the relay does not hear from NATS" if away else "-- the relay hears from NATS again"
            )
        elif kind == "error" and message["code"] not in ("unauthorized", "timeout"):
            # Those two are told by `bye`.
            self.print_status(f"-- {message['code']}: {message['message']}", "red")
        # A gap can end beyond events that are still to come: its end is a place only after a reset.
        place = message.get("to") if message.get("reason") == "reset" else message.get("cursor")
        if place:
            self.cursor = place
            now = asyncio.get_running_loop().time()
            if now >= self._keep_at:
                # What is shown after this is shown again when the machine fails; not when this program ends.
                self._keep_at = now + STATE_WRITE_INTERVAL
                self.keep()

    def _event(self, item: dict[str, Any]) -> None:
        if self._settings.json:
            sys.stdout.buffer.write(orjson.dumps(item) + b"\n")
            sys.stdout.buffer.flush()
        else:
            self._out.print(format_event(item))


def _read_cursor(file: Path | None) -> str | None:
    if file is None or not file.exists():
        return None
    return file.read_text().strip() or None
