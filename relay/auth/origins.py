"""Origin check for browsers: pages of the relay itself and origins on the allow list may connect.

A browser sends ``Origin`` with every WebSocket handshake, and a page cannot forge it. Programs other than
browsers need not send it, and are allowed without it, since they could send any origin.

Desktop apps (Electron, Tauri, extensions, webviews) have their own scheme instead of http: a browser engine
writes their origin as ``scheme://host``, and the origin of a page without one as ``null``. These origins are
allowed only if they are listed.

A page of any site can also point its own domain at an address of the relay (DNS rebinding). Its requests are
then same-origin for the browser, but name the page's domain in ``Host``.
"""

import re
from typing import Final

from tickertape.net.host_names import HOST_PATTERN, rebindable_name, split_host

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ORIGIN: Final = re.compile(f"(https?)://{HOST_PATTERN}", re.IGNORECASE | re.ASCII)
_APP_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE | re.ASCII
)
_WEB_SCHEMES: Final = frozenset({"http", "https", "ws", "wss", "ftp", "file"})
"""Schemes that are not app schemes; of these, only http, https and ``file://`` can be origins."""

_HOSTLESS: Final = frozenset({"null", "file://"})
"""Origins without a host: sandboxed pages, and files in an app. Unrelated pages share them, so they are
allowed only if listed literally."""

Origin = tuple[str, str, int]
"""Scheme, host in lower case, and port of an origin."""


def parse_origin(text: str) -> Origin | None:
    """Parse an http or https origin as a browser writes it; return None for others, such as ``null``."""
    # urlsplit is not used, since it finds a host even in invalid origins such as "http://x.[::1]".
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match[1].lower(), match[2].lower().strip("[]"), match[3]
    if port is not None and int(port) > 65_535:
        return None
    return scheme, host, _DEFAULT_PORTS[scheme] if port is None else int(port)


def parse_entry(text: str) -> tuple[Origin, bool] | None:
    """Parse an http or https entry of an allow list; return None for others, such as those of apps.

    Returns:
        The origin, and whether the entry is a wildcard: for the subdomains of the origin's host.
    """
    # "*" is not valid in a host, so the wildcard label is removed before parsing.
    origin = parse_origin(text.replace("://*.", "://", 1).rstrip("/"))
    return None if origin is None else (origin, "://*." in text)


class Origins:
    """Allow list of origins.

    Args:
        text: comma-separated origins, exact or with ``*`` as the first label: ``https://*.example.com``.
            Origins of apps are exact, or have ``*`` as the host: ``vscode-webview://*``.
        rebinding: whether any host name in ``Host`` is accepted as the relay's own. On a loopback address
            without tokens, this must be False, since the owner of any domain can point it at 127.0.0.1 (DNS
            rebinding).

    Raises:
        ValueError: an entry is not an origin.
    """

    def __init__(self, text: str = "", *, rebinding: bool = True) -> None:
        self._exact: set[Origin] = set()
        self._wildcards: set[Origin] = set()
        self._apps: set[str] = set()  # app origins with the scheme in lower case
        self._app_schemes: set[str] = set()  # app schemes that are allowed with any host
        self._rebinding = rebinding
        for part in filter(None, (part.strip() for part in text.split(","))):
            if self._add_app(part):
                continue
            entry = parse_entry(part)
            if entry is None:
                raise ValueError(
                    f"{part[:80]!r} is not an origin; write it as https://app.example.com, "
                    "https://*.example.com, app://name, app://* or null"
                )
            origin, is_wildcard = entry
            (self._wildcards if is_wildcard else self._exact).add(origin)

    def __repr__(self) -> str:
        apps = len(self._apps) + len(self._app_schemes)
        return f"Origins({len(self._exact)} exact, {len(self._wildcards)} wildcards, {apps} apps)"

    def is_listed(self, origin: str) -> bool:
        """Return whether an origin is on the allow list."""
        parsed = parse_origin(origin)
        if parsed is None:
            return self._is_listed_app(origin)
        scheme, host, port = parsed
        label, _, rest = host.partition(".")
        return parsed in self._exact or (
            (scheme, rest, port) in self._wildcards and _LABEL.fullmatch(label) is not None
        )

    def allows(self, origin: str | None, host: str, *, https: bool) -> bool:
        """Return whether a page may connect.

        Args:
            origin: ``Origin`` of the request; None if there is none.
            host: ``Host`` of the request.
            https: whether the client's connection is encrypted.
        """
        if origin is None:
            return True
        return self.is_listed(origin) or self._is_same_origin(origin, host, https=https)

    def is_own_host(self, host: str) -> bool:
        """Return whether a ``Host`` can be a name of this relay."""
        if self._rebinding:
            return True
        name = rebindable_name(host)
        return name is None or any(name == listed_host for _, listed_host, _ in self._exact)

    def _add_app(self, text: str) -> bool:
        """Add the origin of an app; return False if the text is not the origin of an app."""
        scheme, _, host = text.partition("://")
        if text in _HOSTLESS:
            self._apps.add(text)
        elif host == "*" and (app := _parse_app_origin(f"{scheme}://x")) is not None:
            # The star itself is not a valid host, so only the scheme was parsed with a host in its place.
            self._app_schemes.add(app[0])
        elif (app := _parse_app_origin(text.rstrip("/"))) is not None:
            self._apps.add("://".join(app))
        else:
            return False
        return True

    def _is_listed_app(self, origin: str) -> bool:
        if origin in _HOSTLESS:
            return origin in self._apps
        # A star stands for a host without a port.
        app = _parse_app_origin(origin)
        return app is not None and (
            "://".join(app) in self._apps or (app[0] in self._app_schemes and ":" not in app[1])
        )

    def _is_same_origin(self, origin: str, host: str, *, https: bool) -> bool:
        parsed, host_parts = parse_origin(origin), split_host(host)
        if parsed is None or host_parts is None or not self.is_own_host(host):
            return False
        scheme, name, port = parsed
        # Behind a TLS proxy that is not configured as trusted, the relay sees http; the page's scheme is then
        # the better source of the default port.
        expected_port = host_parts[1] or _DEFAULT_PORTS["https" if https else scheme]
        return (name, port) == (host_parts[0], expected_port)


def _parse_app_origin(text: str) -> tuple[str, str] | None:
    """Split an app origin into its scheme and its host with port; return None for any other text.

    The host keeps its case, since browsers normalize the case only for web schemes.
    """
    match = _APP_ORIGIN.fullmatch(text)
    if match is None or match[1].lower() in _WEB_SCHEMES:
        return None
    return match[1].lower(), match[2] + (match[3] or "")
