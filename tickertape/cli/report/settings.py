"""Options of ``tickertape report``."""

import warnings
from typing import Annotated, ClassVar, Final, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, Field, model_validator

from tickertape.cli.tail.relay_client import RelayClientSettings
from tickertape.contracts.events import parse_time
from tickertape.durations import is_duration

_HTTP: Final = {"ws": "http", "wss": "https"}


def _check_time(text: str) -> str:
    if not is_duration(text):
        try:
            parse_time(text).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(
                f"{text[:40]!r} is neither a duration such as 30d nor an RFC 3339 time"
            ) from None
    return text


with warnings.catch_warnings():
    # The option must be called `json`; the method of BaseModel that the field hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class ReportSettings(RelayClientSettings):
        """Settings of ``tickertape report``."""

        section: ClassVar[str] = "report"
        only_options: ClassVar[frozenset[str]] = frozenset({"since", "until", "json", "csv"})

        since: Annotated[str, AfterValidator(_check_time)] = Field(
            "30d", description="start of the report: a duration such as 30d, or an RFC 3339 time"
        )
        until: Annotated[str, AfterValidator(_check_time)] | None = Field(
            None, description="end of the report; now by default"
        )
        json: bool = Field(False, description="print one JSON object")  # type: ignore[assignment]
        csv: bool = Field(False, description="print one line of CSV per gateway")

        @model_validator(mode="after")
        def _check_format(self) -> Self:
            if self.json and self.csv:
                raise ValueError("csv and json are mutually exclusive; use one of them")
            return self


def http_url(settings: ReportSettings) -> str:
    """Return the HTTP URL that the endpoints are below; ``ws://host/feed/ws`` is that of a mounted feed."""
    parts = urlsplit(settings.url)
    path = parts.path.rstrip("/").removesuffix("/ws")
    return urlunsplit((_HTTP[parts.scheme], parts.netloc, path, "", ""))
