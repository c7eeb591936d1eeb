"""Static files of the dashboard, with gzip compression and conditional requests.

Invariants: a file is compressed once, not once per request; the next request sees a changed file; compressed
and uncompressed responses have different ETags, and ``Vary`` tells caches which header selects them.
"""

import gzip
import os
from functools import lru_cache
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

_MAX_COMPRESSED_FILES: Final = 256
"""Maximum number of compressed file versions in the cache; the dashboard has about fifty files."""

_COMPRESSIBLE: Final = ("text/", "image/svg+xml", "application/javascript", "application/json")
"""Prefixes of media types that compress well."""


class Assets(StaticFiles):
    """Static files of a folder, with gzip compression."""

    def file_response(
        self,
        full_path: "str | os.PathLike[str]",
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, compressed if the request accepts gzip (RFC 9110, 12.5.3)."""
        request_headers = Headers(scope=scope)
        file = _CompleteFile(full_path, status_code=status_code, stat_result=stat_result)
        # ``FileResponse`` announces ranges, which ``_CompleteFile`` ignores.
        file.headers["accept-ranges"] = "none"
        response: Response = file
        if file.headers["content-type"].startswith(_COMPRESSIBLE):
            if _accepts_gzip(request_headers.get("accept-encoding", "")):
                response = _compressed_response(file, stat_result)
            response.headers["vary"] = "Accept-Encoding"
        # Checked against the ETag of the variant that the request would receive.
        if self.is_not_modified(response.headers, request_headers):
            return NotModifiedResponse(response.headers)
        return response


class _CompleteFile(FileResponse):
    """Response that ignores ranges, since Starlette rejects invalid ones with an error that is not JSON."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Ignoring the header is allowed by RFC 9110, 14.2.
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _compressed_response(file: FileResponse, stat_result: os.stat_result) -> Response:
    headers = {
        "content-encoding": "gzip",
        "content-type": file.headers["content-type"],
        "last-modified": file.headers["last-modified"],
        # Inside the quotation marks that are part of an ETag.
        "etag": f'{file.headers["etag"].removesuffix(chr(34))}-gzip"',
    }
    return Response(
        _compress(str(file.path), stat_result.st_mtime_ns, stat_result.st_size), file.status_code, headers
    )


@lru_cache(_MAX_COMPRESSED_FILES)
def _compress(path: str, modified: int, size: int) -> bytes:
    """Return the compressed file; ``modified`` and ``size`` identify its version in the cache."""
    with open(path, "rb") as file:
        return gzip.compress(file.read(), mtime=0)  # mtime=0: every relay sends the same bytes


def _accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an ``Accept-Encoding`` gives gzip, or else ``*``, a weight above zero."""
    # A weight of zero excludes a coding, so a search for the name is not enough.
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.partition(";")
        try:
            weights[name.strip()] = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            weights[name.strip()] = 0
    return weights.get("gzip", weights.get("*", 0)) > 0


__all__ = ["Assets"]
