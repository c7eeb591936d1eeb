"""Probe ``http``: one request and the conditions on its response, whose body is read up to a limit.

Invariant: a redirect to another origin does not receive secrets.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pydantic import BeforeValidator, Field, model_validator
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.options.content import ContentError, read_content
from tickertape.producers.monitor.probes.options.json_path import JsonCondition, JsonValue
from tickertape.producers.monitor.probes.options.patterns import (
    MAX_SHOWN,
    RegularExpression,
    RegularExpressions,
    matches,
    shorten,
    show,
)
from tickertape.producers.monitor.probes.options.secrets import (
    HeaderOptions,
    SecretFile,
    Variable,
    check_one_source,
    read_secret,
)
from tickertape.producers.monitor.probes.options.tls import TlsOptions
from tickertape.producers.monitor.probes.result import SECRET_NAME, answered, failed, redact
from tickertape.producers.monitor.probes.settings import UrlProbe
from tickertape.producers.monitor.types import HttpUrl

from tickertape.net.http_client import HttpError, Response, fetch
from tickertape.urls import parse_url, redact_url

MAX_BODY_BYTES: Final = 64 * 1024
"""Bytes read from the body of a response if the probe does not inspect the body."""

MAX_INSPECTED_BYTES: Final = 1024 * 1024
"""Bytes read from the body of a response if the probe inspects the body."""

SMALL_BODY_BYTES: Final = 16 * 1024
"""Bytes of a body that is inspected without a thread."""

DEFAULT_REDIRECTS: Final = 10
"""Redirects that ``follow_redirects: true`` follows."""

_OWN_HEADERS: Final = {"User-Agent": "tickertape-monitor", "Accept-Encoding": "identity"}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ABSENT: Final = object()
_PORTS: Final = {"http": 80, "https": 443}
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"
"""Characters that are not percent-encoded in the address of a redirect, like letters, digits and ``_.-``."""

Code = Annotated[int, Field(ge=100, le=599, strict=True)]

_CLASSES: Final = {f"{digit}xx": range(100 * digit, 100 * digit + 100) for digit in range(1, 6)}


def _expand_classes(value: object) -> object:
    """Replace classes of statuses, such as ``2xx``, by their statuses."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, str) and item not in _CLASSES:
            raise ValueError(f"{item!r} is not a status; use a code such as 200, or a class such as 2xx")
    if not any(isinstance(item, str) and item in _CLASSES for item in items):
        return value
    return [status for item in items for status in _CLASSES.get(str(item), [item])]


def _describe_statuses(statuses: list[int]) -> str:
    classes = [name for name, members in _CLASSES.items() if set(members) <= set(statuses)]
    others = [str(status) for status in statuses if f"{status // 100}xx" not in classes]
    return " or ".join(classes + others)


Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
"""Methods of requests; recovery actions use the same ones."""


class HttpProbe(HeaderOptions, TlsOptions, UrlProbe):
    """HTTP request whose response must have the given status, headers, body text and JSON values."""

    kind: Literal["http"]
    url: HttpUrl
    method: Method = "GET"
    send: str | None = Field(default=None, repr=False)
    """Body of the request."""
    send_env: Variable | None = None
    send_file: SecretFile | None = None
    follow_redirects: Annotated[
        int,
        BeforeValidator(lambda value: DEFAULT_REDIRECTS * value if isinstance(value, bool) else value),
        Field(ge=0, le=20, strict=True),
    ] = 0
    """Maximum number of redirects to follow; true for 10."""
    status: Annotated[Code | Annotated[list[Code], Field(min_length=1)], BeforeValidator(_expand_classes)] = (
        200
    )
    """Expected status, such as 200 or ``2xx``, or a list."""
    header_matches: dict[str, RegularExpression] = Field(default={})
    """Regular expression that the value of each header must match."""
    header_not_matches: dict[str, RegularExpression] = Field(default={})
    body: str | None = None
    """Text that the body of the response must contain."""
    body_matches: RegularExpressions | None = None
    """Regular expressions that the body must match, each anywhere."""
    body_not_matches: RegularExpressions | None = None
    json_: dict[str, JsonValue] = Field(default={}, alias="json")
    """Expected values in the JSON body by path, such as ``status`` or ``checks.market_data``."""
    json_path: list[JsonCondition] = Field(default=[])
    """Conditions on values in the JSON body."""

    @property
    def inspects_body(self) -> bool:
        """Whether a condition needs the body."""
        texts = (self.body, self.body_matches, self.body_not_matches)
        return any(text is not None for text in texts) or bool(self.json_ or self.json_path)

    @model_validator(mode="after")
    def _check_bodies(self) -> "HttpProbe":
        if self.method == "HEAD" and self.inspects_body:
            raise ValueError("a response to HEAD has no body; use GET, or remove the conditions on the body")
        check_one_source(self, ("send", "send_env", "send_file"))
        return self

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        headers = self.read_headers()
        content = read_secret(self.send_env, self.send_file) or self.send or ""
        secrets = headers.secrets if self.send else {**headers.secrets, "secret content": content}
        request = _Request(
            self.url, self.method, headers.all, content.encode(), bool(self.send), self.server_name
        )
        async with asyncio.timeout(time_limit):
            try:
                response = await self._fetch(request, set(headers.all) - set(headers.public), time_limit)
            except HttpError as error:  # it may quote what the peer has repeated
                return failed(redact(str(error), secrets))
            latency = clock() - started
            is_large = len(response.body) > SMALL_BODY_BYTES or "content-encoding" in response.headers
            if is_large and self.inspects_body:
                # In a thread, so that the event loop serves other probes meanwhile.
                mismatch = await asyncio.to_thread(_find_mismatch, self, response, secrets)
            else:
                mismatch = _find_mismatch(self, response, secrets)
        if mismatch is not None:
            return failed(mismatch, latency)
        return answered(latency, self.degraded_above, response.expires)

    async def _fetch(self, request: "_Request", secret: set[str], seconds: float) -> Response:
        """Send the request, and follow redirects; no proxy from the environment is used."""
        limit = MAX_INSPECTED_BYTES if self.inspects_body else MAX_BODY_BYTES
        expiries: list[float] = []
        for _ in range(self.follow_redirects + 1):
            response = await fetch(
                request.url,
                seconds,
                limit,
                method=request.method,
                headers=_OWN_HEADERS | request.headers,
                content=request.content,
                tls=self.ssl_context() if urlsplit(request.url).scheme == "https" else None,
                server_name=request.server_name,
            )
            if response.expires is not None:
                expiries.append(response.expires)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None or not self.follow_redirects:
                # The first server's certificate may expire before that of the server it redirects to.
                return replace(response, expires=min(expiries, default=None))
            request = request.redirect(response.status, location, secret)
        last = redact_url(request.url)[:MAX_SHOWN]
        raise HttpError(f"more than {self.follow_redirects} redirects, the last to {last}")


@dataclass(frozen=True, slots=True)
class _Request:
    """Request that may be redirected; only ``public`` content is sent to another origin."""

    url: str
    method: str
    headers: dict[str, str]
    content: bytes
    public: bool
    server_name: str | None

    def redirect(self, status: int, location: str, secret: set[str]) -> "_Request":
        """Return the request that follows a response, as browsers do.

        Args:
            status, location: of the response.
            secret: names of headers that another origin must not receive.

        Raises:
            ValueError: the location is not valid.
        """
        try:
            # Servers send spaces and other characters as they are, in UTF-8.
            url = urljoin(self.url, quote(location.encode("latin-1"), safe=_URL_CHARACTERS))
            parts = parse_url(url, ("http", "https"), "http://host/path")
        except ValueError:
            raise HttpError(f"redirect to an invalid address: {show(location, {})}") from None
        request = replace(self, url=url)
        if status == 303 or (status in (301, 302) and self.method == "POST"):
            request = replace(request, method="HEAD" if self.method == "HEAD" else "GET", content=b"")
        if _origin(parts) == _origin(urlsplit(self.url)):
            return request
        kept = {
            name: value
            for name, value in self.headers.items()
            if name not in secret and not SECRET_NAME.search(name) and name.lower() != "host"
        }
        content = request.content if self.public else b""
        return replace(request, headers=kept, content=content, server_name=None)


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _find_mismatch(probe: HttpProbe, response: Response, secrets: dict[str, str]) -> str | None:
    """Return the first condition that a response does not fulfil; None if it fulfils all."""
    expected = probe.status if isinstance(probe.status, list) else [probe.status]
    if response.status not in expected:
        return f"status is {response.status}, expected {_describe_statuses(expected)}"
    for wanted, patterns in ((True, probe.header_matches), (False, probe.header_not_matches)):
        for name, pattern in patterns.items():
            values = [value for key, value in response.fields if key == name.lower()]
            if not values and wanted:
                return f"header {name} is absent, expected {pattern!r}"
            if values and any(matches(pattern, value) for value in values) is not wanted:
                expectation = f"{'' if wanted else 'not '}{pattern!r}"
                return f"header {name} is {show(', '.join(values), secrets)}, expected {expectation}"
    return _find_body_mismatch(probe, response, secrets) if probe.inspects_body else None


def _find_body_mismatch(probe: HttpProbe, response: Response, secrets: dict[str, str]) -> str | None:
    try:
        content = read_content(response.body, response.truncated, response.headers, MAX_INSPECTED_BYTES)
    except ContentError as error:
        return str(error)
    text = content.text
    if probe.body is not None and probe.body not in text:
        return f"response does not contain {probe.body!r}"
    for pattern in probe.body_matches or ():
        if not matches(pattern, text):
            return f"response does not match {pattern!r}: {show(text, secrets)}"
    for pattern in probe.body_not_matches or ():
        if matches(pattern, text):
            return f"response matches {pattern!r}: {show(text, secrets)}"
    needs_all = probe.body_not_matches or probe.json_ or probe.json_path
    if content.truncated and needs_all:
        return f"response is larger than {MAX_INSPECTED_BYTES} bytes, expected less for these conditions"
    if not probe.json_ and not probe.json_path:
        return None
    try:
        document = content.parse_json()
    except ContentError as error:
        return f"{error}: {show(text, secrets)}"
    for path, expected in probe.json_.items():
        value = _get_path(document, path)
        # In Python 1 == True, but not in JSON.
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            actual = "is absent" if value is _ABSENT else f"is {shorten(repr(value), secrets)}"
            return f"{path} {actual}, expected {expected!r:.60}"
    for condition in probe.json_path:
        if (mismatch := condition.find_mismatch(document)) is not None:
            return f"{condition.path} {shorten(mismatch[0], secrets)}, expected {mismatch[1]:.60}"
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
