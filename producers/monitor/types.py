"""Validated field types of the monitor's file: durations, addresses and counts."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from tickertape.contracts import subjects

from tickertape.durations import parse_duration
from tickertape.urls import parse_url
from tickertape.validation import checked_by


def parse_address(text: str) -> tuple[str, int]:
    """Parse ``host:port``, where an IPv6 address is in brackets.

    Raises:
        ValueError: the text is not an address.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or (":" in host and not text.startswith("[")):
        raise ValueError(f"{text!r} is not an address; use host:port, such as 127.0.0.1:41205 or [::1]:41205")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} of {text!r} is out of range; use a number from 1 to 65535")
    return host, int(port)


def _check_positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be greater than 0")
    return value


Address = Annotated[str, checked_by(parse_address)]
HttpUrl = Annotated[
    str, checked_by(lambda text: parse_url(text, ("http", "https"), "http://127.0.0.1:8000/health"))
]
WebSocketUrl = Annotated[
    str, checked_by(lambda text: parse_url(text, ("ws", "wss"), "ws://127.0.0.1:8000/ws"))
]
Pattern = Annotated[str, AfterValidator(subjects.check_pattern)]
Command = Annotated[list[str], Field(min_length=1)]
Environment = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Annotated[str, Field(pattern=r"^[^\x00]*$")]
]
Id = Annotated[str, checked_by(subjects.escape)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_check_positive)]
Count = Annotated[int, Field(ge=1, le=1000, strict=True)]


class Settings(BaseModel):
    """Mapping in the file; unknown keys are rejected, because they are usually typos."""

    model_config = ConfigDict(extra="forbid", frozen=True)
