"""Probe ``http``: one request and the conditions on its response, whose body is read up to a limit."""

import time
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, model_validator
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import answered, failed, redact
from tickertape.producers.monitor.probes.settings import UrlProbe
from tickertape.producers.monitor.probes.tls import create_ssl_context
from tickertape.producers.monitor.types import HttpUrl

from tickertape.net.http_client import fetch

MAX_BODY_BYTES: Final = 64 * 1024
"""Bytes read from the body of a response if the probe does not inspect the body."""

MAX_INSPECTED_BYTES: Final = 1024 * 1024
"""Bytes read from the body of a response if the probe inspects the body."""

_ABSENT: Final = object()


Code = Annotated[int, Field(ge=100, le=599, strict=True)]


Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT"]
"""Methods of requests, all sent without a body; recovery actions use the same ones."""


class HttpProbe(UrlProbe):
    """HTTP request whose response must have the given status, body text and JSON values."""

    kind: Literal["http"]
    url: HttpUrl
    method: Method = "GET"
    status: Code | Annotated[list[Code], Field(min_length=1)] = 200
    headers: dict[str, str] = Field(default={}, repr=False)
    body: str | None = None
    """Text that the body of the response must contain."""
    json_: dict[str, Any] = Field(default={}, alias="json")
    """Expected values in the JSON body by path, such as ``status`` or ``checks.market_data``."""

    @property
    def expected_statuses(self) -> tuple[int, ...]:
        """Statuses of a successful response."""
        return (self.status,) if isinstance(self.status, int) else tuple(self.status)

    @model_validator(mode="after")
    def _check_body_exists(self) -> "HttpProbe":
        if self.method == "HEAD" and (self.body is not None or self.json_):
            raise ValueError("a response to HEAD has no body; use GET, or remove 'body' and 'json'")
        return self

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        inspected = self.body is not None or bool(self.json_)
        # No proxy from the environment comes between the monitor and the gateway.
        response = await fetch(
            self.url,
            time_limit,
            MAX_INSPECTED_BYTES if inspected else MAX_BODY_BYTES,
            method=self.method,
            headers={"User-Agent": "tickertape-monitor", **self.headers},
            tls=create_ssl_context(),
        )
        latency = clock() - started
        if response.status not in self.expected_statuses:
            expected = " or ".join(map(str, self.expected_statuses))
            return failed(f"status is {response.status}, expected {expected}", latency)
        if (mismatch := _find_mismatch(self, response.body)) is not None:
            return failed(mismatch, latency)
        return answered(latency, self.degraded_above, response.expires)


def _find_mismatch(probe: HttpProbe, body: bytes) -> str | None:
    if probe.body is not None and probe.body.encode() not in body:
        return f"response does not contain {probe.body!r}"
    if not probe.json_:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "response is not JSON"
    for path, expected in probe.json_.items():
        value = _get_path(document, path)
        # In Python 1 == True, but not in JSON.
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            actual = "is absent" if value is _ABSENT else f"is {redact(repr(value), probe.headers):.60}"
            return f"{path} {actual}, expected {expected!r:.60}"
    return None


def _get_path(body: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(body, dict) and name in body:
            body = body[name]
        elif isinstance(body, list) and name.isdigit() and int(name) < len(body):
            body = body[int(name)]
        else:
            return _ABSENT
    return body
