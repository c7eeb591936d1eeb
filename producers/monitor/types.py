"""Validated field types of the monitor's file: durations, addresses and counts."""

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from tickertape.contracts import subjects

from tickertape.durations import parse_duration
from tickertape.urls import parse_url
from tickertape.validation import checked_by

MIN_DURATION: Final = 0.001
"""Minimum seconds of a duration that is not 0: an event loop has no shorter ones."""

MAX_DURATION: Final = 3650 * 86_400.0
"""Maximum seconds of a duration."""

MAX_NAME_LENGTH: Final = 1_000
"""Characters of a group or of the value of a label; each event of the gateway contains them."""

MAX_HOST_LENGTH: Final = 253
"""Characters of a host name in DNS."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]*")
_HEADER_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_OWN_HEADERS: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})


def check_host(host: str) -> str:
    """Return a host name or an IP address unchanged if it can exist.

    Raises:
        ValueError: it can never be resolved.
    """
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return host
    problem = _find_host_problem(host)
    if problem is not None:
        raise ValueError(
            f"host {host!r} {problem}; use a host name such as gw1.internal, or an address such as 10.0.0.1"
        )
    return host


def _find_host_problem(host: str) -> str | None:
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return "is not a host name"
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_HOST_LENGTH:
        return f"is longer than {MAX_HOST_LENGTH} characters"
    if "" in labels:
        return "has an empty part beside a dot"
    if labels[-1].isdigit():
        return "is not an IP address"
    if (label := next((one for one in labels if not _LABEL.fullmatch(one)), None)) is not None:
        return f"has the part {label[:70]!r}, which no host name can have"
    return None


@lru_cache(4096)
def parse_address(text: str) -> tuple[str, int]:
    """Parse ``host:port``, where an IPv6 address is in brackets.

    Raises:
        ValueError: the text is not an address.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not colon or not host or (":" in host and not is_bracketed):
        raise ValueError(f"{text!r} is not an address; use host:port, such as 127.0.0.1:41205 or [::1]:41205")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} of {text!r} is out of range; use a number from 1 to 65535")
    return check_host(host), int(port)


def _check_url(*schemes: str, example: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        check_host(parse_url(text, schemes, example).hostname or "")
        return text

    return check


def _check_range(value: float) -> float:
    if value and not MIN_DURATION <= value <= MAX_DURATION:
        raise ValueError(f"{value:g} s is out of range; use 1ms to {MAX_DURATION / 86_400:.0f}d")
    return value


def _check_positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be greater than 0; use a duration such as 5s")
    return value


def check_token(text: str) -> str:
    """Return a text unchanged if it is a token of HTTP, such as a subprotocol.

    Raises:
        ValueError: it has other characters than tokens have.
    """
    if not _TOKEN.fullmatch(text):
        raise ValueError(
            f"{text!r} is not one name; use letters, digits and '-._', without spaces and commas"
        )
    return text


def check_printable(text: str) -> str:
    """Return a text unchanged if it has characters and none of them is a control character.

    Raises:
        ValueError: it is empty, or has a control character.
    """
    if not text:
        raise ValueError("is empty; add a value")
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("has a control character; remove it, such as a line break or a tab")
    return text


def check_name(text: str) -> str:
    """Return a text unchanged if it can be shown as a name.

    Raises:
        ValueError: it is blank, too long, or has a control character.
    """
    if not text.strip():
        raise ValueError("is empty; add a name, or remove the line")
    if len(text) > MAX_NAME_LENGTH:
        raise ValueError(f"is longer than {MAX_NAME_LENGTH} characters; shorten it")
    return check_printable(text)


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of a request unchanged if they can be sent.

    Raises:
        ValueError: a name or a value is not allowed, or a header would be sent twice.
    """
    seen: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a name of a header; use letters, digits and '-', not a colon")
        # The value may be a secret, and is not shown.
        if not _HEADER_VALUE.fullmatch(value):
            problem = "has a line break, a character beyond Latin-1 or white space at an end"
            raise ValueError(f"the value of header {name!r} {problem}; remove it")
        if lower == "host" and name != "Host":
            raise ValueError(
                f"{name!r} would be sent besides 'Host', so servers reject it; write it as 'Host'"
            )
        if lower in _OWN_HEADERS or lower.startswith("sec-websocket-"):
            raise ValueError(f"{name!r} is sent by the probe itself; remove it")
        if lower in seen:
            raise ValueError(f"{name!r} and {seen[lower]!r} are the same header; remove one")
        seen[lower] = name
    return headers


def drop_extensions(value: Any) -> Any:
    """Return a mapping without the keys that begin with ``x-``, which may hold anchors."""
    if not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if not str(key).startswith("x-")}


Address = Annotated[str, checked_by(parse_address)]
Host = Annotated[str, AfterValidator(check_host)]
HttpUrl = Annotated[str, AfterValidator(_check_url("http", "https", example="http://127.0.0.1:8000/health"))]
WebSocketUrl = Annotated[str, AfterValidator(_check_url("ws", "wss", example="ws://127.0.0.1:8000/ws"))]
Headers = Annotated[dict[str, str], AfterValidator(check_headers)]
Token = Annotated[str, AfterValidator(check_token)]
FilePath = Annotated[str, AfterValidator(check_printable)]
Printable = Annotated[str, AfterValidator(check_printable)]
Pattern = Annotated[str, AfterValidator(subjects.check_pattern)]
Command = Annotated[list[Annotated[str, Field(pattern=r"^[^\x00]*$")]], Field(min_length=1)]
Environment = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Annotated[str, Field(pattern=r"^[^\x00]*$")]
]
Id = Annotated[str, checked_by(subjects.escape), AfterValidator(check_printable)]
Duration = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_check_range)]
PositiveDuration = Annotated[
    float, BeforeValidator(parse_duration), AfterValidator(_check_positive), AfterValidator(_check_range)
]
Count = Annotated[int, Field(ge=1, le=1000, strict=True)]


class Settings(BaseModel):
    """Mapping in the file; unknown keys are rejected, because they are usually typos.

    Keys that begin with ``x-`` are ignored: they may hold anchors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_extensions(cls, value: Any) -> Any:
        return drop_extensions(value)
