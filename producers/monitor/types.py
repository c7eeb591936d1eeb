"""Values as they stand in the monitor's file: durations, addresses, counts, each checked."""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from tickertape.contracts import subjects

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Read a number with a unit (``ms s m h d``) into seconds.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no duration; write a number with a unit, as in 500ms, 5s or 2m")
    return float(found[1]) * _UNITS[found[2]]


def parse_address(text: str) -> tuple[str, int]:
    """Read ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or (":" in host and not text.startswith("[")):
        raise ValueError(f"{text!r} is no address; write host:port, as in 127.0.0.1:41205 or [::1]:41205")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} of {text!r} is out of range; it is a number from 1 to 65535")
    return host, int(port)


def _address(text: str) -> str:
    parse_address(text)
    return text


def _url(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        url = urlsplit(text)
        if url.scheme not in schemes or not url.hostname:
            raise ValueError(f"{text!r} is no {' or '.join(schemes)} address")
        try:
            port = url.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"the port of {text!r} is out of range; it is a number from 1 to 65535")
        if url.username is not None:
            raise ValueError("a user in the address would be shown in events; take it out")
        if not text.isascii() or any(character <= " " for character in text):
            raise ValueError(f"{text!r} has characters that must be percent-encoded")
        return text

    return AfterValidator(check)


def _pattern(text: str) -> str:
    return subjects.check_pattern(text)


def _id(text: str) -> str:
    subjects.escape(text)
    return text


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


Address = Annotated[str, AfterValidator(_address)]
HttpUrl = Annotated[str, _url("http", "https")]
WebSocketUrl = Annotated[str, _url("ws", "wss")]
Pattern = Annotated[str, AfterValidator(_pattern)]
Command = Annotated[list[str], Field(min_length=1)]
Id = Annotated[str, AfterValidator(_id)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_positive)]
Count = Annotated[int, Field(ge=1, le=1000, strict=True)]


class Settings(BaseModel):
    """A mapping of the file; a key that nobody knows is a typing mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)
