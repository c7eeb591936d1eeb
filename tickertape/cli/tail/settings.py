"""Options of ``tickertape tail``, and the address that follows from them."""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import Field, model_validator

from tickertape.cli.tail.relay_client import RelayClientSettings
from tickertape.config.model import Mark
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.messages import ProtocolError
from tickertape.errors import ConfigurationError
from tickertape.net.loopback import loopback_url
from tickertape.relay.core.session.subscription import parse_query

_MAX_STATE: Final = 1024
"""Characters of a state file that are read; a cursor is much shorter."""

with warnings.catch_warnings():
    # The option must be called `json`; the method of BaseModel that the field hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class TailSettings(RelayClientSettings):
        """Settings of ``tickertape tail``."""

        section: ClassVar[str] = "tail"
        schemes: ClassVar[tuple[str, ...]] = ("ws", "wss", "http", "https")

        url: str = Field(
            loopback_url("ws", 8080, "/ws"),
            description="URL of the relay: of its WebSocket, or http:// or https:// if only HTTP passes",
        )
        subjects: Annotated[str, Mark.COMMAS] | None = Field(
            None, description="subject patterns, separated by commas; all by default"
        )
        level: str | None = Field(
            None, description="minimum level of log events: DEBUG, INFO, WARN, ERROR or CRITICAL"
        )
        where: str | None = Field(
            None,
            description="condition on log events in CEL, such as 'event.metadata.account == 7'; see "
            "docs/filters.md",
        )
        mode: str | None = Field(None, description="delivery mode: live, complete or latest")
        cursor: str | None = Field(None, description="cursor after which to resume")
        state_file: Path | None = Field(
            None, description="file that stores the cursor, so that the next run resumes there"
        )
        since: str | None = Field(
            None, description="start: earliest, a duration such as 10m, or an RFC 3339 time"
        )
        json: bool = Field(False, description="print one JSON object per event")  # type: ignore[assignment]

        @model_validator(mode="after")
        def _check_request(self) -> Self:
            if self.cursor and self.since:
                raise ValueError("cursor and since are mutually exclusive; use one of them")
            try:
                # As the relay does, which may have RE2 where this machine has not.
                known = self if find_spec("re2") else self.model_copy(update={"where": None})
                parse_query(urlsplit(build_url(known, self.cursor)).query)
            except ProtocolError as error:
                raise ValueError(error.message) from None
            return self


def read_cursor(file: Path | None) -> str | None:
    """Return the cursor of a state file; None if there is none yet.

    Raises:
        ConfigurationError: the file cannot be read or written, or does not contain a cursor.
    """
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8", errors="replace")[:_MAX_STATE].strip()
    except FileNotFoundError:
        if not os.access(file.parent, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"--state-file {file} cannot be written", "create its folder, or make it writable"
            ) from None
        return None
    except OSError as error:
        raise ConfigurationError(
            f"--state-file {file} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    try:
        return str(parse_cursor(text)) if text else None
    except ValueError:
        raise ConfigurationError(
            f"--state-file {file} contains no cursor", "delete the file, or use another one"
        ) from None


def build_url(settings: TailSettings, cursor: str | None = None) -> str:
    """Build the URL to connect to.

    Args:
        settings: options of the command.
        cursor: cursor to resume from; None starts as the settings say.
    """
    parameters = {
        "subjects": settings.subjects,
        "level": settings.level,
        "where": settings.where,
        "mode": settings.mode,
        "cursor": cursor,
        "since": None if cursor else settings.since,
    }
    url = urlsplit(settings.url)
    if url.scheme in ("http", "https") and url.path in ("", "/", "/ws"):
        url = url._replace(path="/stream")
    # Arguments may contain bytes that are not UTF-8, which the relay rejects with a reason.
    given = {key: value for key, value in parameters.items() if value is not None}
    query = urlencode(given, errors="surrogateescape")
    return urlunsplit(url._replace(query="&".join(filter(None, (url.query, query)))))
