"""``tickertape tail``: a live feed in the terminal, which goes on where it was when the link breaks."""

import asyncio
import contextlib
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console
from rich.text import Text
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from contracts.codes import CLOSE_CODES, CloseCode, Reconnect
from contracts.wire import MAX_MESSAGE_BYTES, SUBPROTOCOL

BACKOFF_FIRST: Final = 0.5
BACKOFF_MOST: Final = 20.0
DEAD_AFTER: Final = 25.0
"""Seconds of silence after which the link counts as dead: a heartbeat and ten more."""

KEEP_EVERY: Final = 1.0
"""Seconds between two writes of the state file."""

_LEVEL_STYLES: Final = {
    "DEBUG": "dim",
    "INFO": "cyan",
    "WARN": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold white on red",
}
_STATUS_STYLES: Final = {
    "HEALTHY": "green",
    "DEGRADED": "yellow",
    "RECOVERING": "yellow",
    "UNHEALTHY": "bold red",
}


with warnings.catch_warnings():
    # `json` is what flag and variable must be called; the method that it hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class TailSettings(BaseSettings):
        """Options of ``tickertape tail``; each also as ``TICKERTAPE_<NAME>``."""

        model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

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

        @field_validator("url")
        @classmethod
        def _websocket(cls, value: str) -> str:
            url = urlsplit(value)
            if url.scheme not in ("ws", "wss") or not url.hostname:
                raise ValueError(f"{value!r} is no WebSocket address; write it as ws://127.0.0.1:8080/ws")
            return value


async def run(settings: TailSettings) -> int:
    """Print the feed until a signal ends it.

    Returns:
        0 after a signal, 1 when the relay refuses for good.
    """
    loop = asyncio.get_running_loop()
    tail = _Tail(settings)
    work = asyncio.ensure_future(tail.follow())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await work
    tail.keep()
    if tail.cursor:
        tail.say(f"at {tail.cursor}: go on with --cursor {tail.cursor}")
    return 0


class _Tail:
    def __init__(self, settings: TailSettings) -> None:
        self.cursor = settings.cursor or _kept(settings.state_file)
        self._settings = settings
        self._keep_at = 0.0
        self._since = settings.since
        self._out = Console(highlight=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str, style: str = "dim") -> None:
        """Print a line that is not an event, on standard error."""
        self._notes.print(Text(_plain(text), style))

    def keep(self) -> None:
        """Write the place reached to the state file, whole or not at all."""
        file = self._settings.state_file
        if file is not None and self.cursor:
            draft = file.with_name(f"{file.name}.new")
            draft.write_text(f"{self.cursor}\n")
            draft.replace(file)

    async def follow(self) -> int:
        wait = BACKOFF_FIRST
        while True:
            delay = random.uniform(0, wait)  # noqa: S311 - spreads clients, keeps no secret
            try:
                code, reason, retry_ms = await self._session()
                rule = CLOSE_CODES.get(CloseCode(code)) if code in list(CloseCode) else None
                if rule is not None and rule.reconnect in (Reconnect.NEVER, Reconnect.NEW_TOKEN):
                    self.say(f"tickertape tail: the relay closed with {code}: {reason}", "red")
                    return 1
                if retry_ms is not None:
                    delay = retry_ms / 1000
                wait = BACKOFF_FIRST
                self.say(f"-- the relay closed ({code} {reason}); again in {delay:.1f} s")
            except InvalidStatus as error:
                body = error.response.body or b""
                text = body.decode(errors="replace")[:200]
                self.say(f"tickertape tail: the relay refused: {error.response.status_code} {text}", "red")
                if error.response.status_code not in (429, 503):
                    return 1
            except (OSError, InvalidHandshake, TimeoutError, InvalidURI) as error:
                self.say(f"-- no relay at {self._settings.url}: {error}; again in {delay:.1f} s")
            await asyncio.sleep(delay)
            wait = min(BACKOFF_MOST, wait * 2)

    async def _session(self) -> tuple[int, str, int | None]:
        bye: tuple[int, str, int | None] | None = None
        async with connect(
            self._address(),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            ping_interval=None,
        ) as socket:
            while True:
                try:
                    text = await asyncio.wait_for(socket.recv(decode=False), DEAD_AFTER)
                except TimeoutError:
                    return CloseCode.TIMEOUT, "nothing was heard", None
                except ConnectionClosed as closed:
                    close = closed.rcvd
                    return bye or ((close.code, close.reason, None) if close else (1006, "cut off", None))
                message = orjson.loads(text)
                if message["type"] == "bye":
                    bye = (message["code"], message["reason"], message["retry_after_ms"])
                self._show(message)

    def _address(self) -> str:
        settings = self._settings
        asked = {
            "subjects": settings.subjects,
            "level": settings.level,
            "mode": settings.mode,
            "cursor": self.cursor,
            "since": None if self.cursor else self._since,
        }
        url = urlsplit(settings.url)
        query = urlencode({key: value for key, value in asked.items() if value})
        return urlunsplit(url._replace(query="&".join(filter(None, (url.query, query)))))

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
            self.say(f"-- {what} ({message['reason']}): {message['from']} to {message['to']}", "yellow")
        elif kind == "upstream":
            away = message["state"] != "connected"
            self.say("-- the relay does not hear from NATS" if away else "-- the relay hears from NATS again")
        elif kind == "error":
            self.say(f"-- {message['code']}: {message['message']}", "red")
        # A gap can end beyond events that are still to come: its end is a place only after a reset.
        place = message.get("to") if message.get("reason") == "reset" else message.get("cursor")
        if place:
            self.cursor = place
            now = asyncio.get_running_loop().time()
            if now >= self._keep_at:
                # What is shown after this is shown again when the machine fails; not when this program ends.
                self._keep_at = now + KEEP_EVERY
                self.keep()

    def _event(self, item: dict[str, Any]) -> None:
        if self._settings.json:
            sys.stdout.buffer.write(orjson.dumps(item) + b"\n")
            sys.stdout.buffer.flush()
            return
        event = item["event"]
        line = Text(_plain(str(event.get("timestamp", "")))[11:23] + " ", "dim")
        kind = event.get("event_type")
        if kind == "system_log":
            level = str(event["level"])
            line.append(f"{level:<8} ", _LEVEL_STYLES.get(level, ""))
            line.append(_plain(event["source"]) + "  ", "dim")
            line.append(_plain(event["message"]))
        elif kind == "gateway_status_change":
            status = str(event["current_status"])
            line.append("STATUS   ", "bold")
            line.append(f"{_plain(event['gateway_type'])}/{_plain(event['gateway_id'])}  ")
            line.append(f"{event['previous_status']} -> ", "dim")
            line.append(status, _STATUS_STYLES.get(status, ""))
        elif kind == "system_health":
            status = str(event["status"])
            line.append("HEALTH   ", "bold")
            line.append(_plain(item["subject"].removeprefix("system.health.")) + "  ")
            line.append(status, _STATUS_STYLES.get(status, ""))
        else:
            line.append("EVENT    ", "bold")
            line.append(_plain(item["subject"]) + "  " + _plain(orjson.dumps(event).decode()))
        self._out.print(line)


def _kept(file: Path | None) -> str | None:
    if file is None or not file.exists():
        return None
    return file.read_text().strip() or None


def _plain(text: str) -> str:
    """Text that cannot steer the terminal: control characters become the sign for what is left out."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
