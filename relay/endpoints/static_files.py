"""The dashboard's files over HTTP: packed for whoever takes that, and not sent again while they are the same.

Invariants: a file is packed once, not once per visitor; a change of the file is seen by the next request;
what is packed and what is not have different tags, and a cache on the way is told which header decides.
"""

import gzip
import os
from functools import lru_cache
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

_PACKED_FILES: Final = 256
"""Versions of files that are kept packed; the page has some fifty."""

_TEXT: Final = ("text/", "image/svg+xml", "application/javascript", "application/json")
"""Media types that get smaller by packing."""


class Assets(StaticFiles):
    """Files of a folder, with gzip."""

    def file_response(
        self,
        full_path: "str | os.PathLike[str]",
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Answer with a file, packed where the request allows that (RFC 9110, 12.5.3)."""
        asked = Headers(scope=scope)
        whole = _WholeFile(full_path, status_code=status_code, stat_result=stat_result)
        whole.headers["accept-ranges"] = "none"
        answer: Response = whole
        if whole.headers["content-type"].startswith(_TEXT):
            if _takes_gzip(asked.get("accept-encoding", "")):
                answer = _packed_response(whole, stat_result)
            answer.headers["vary"] = "Accept-Encoding"
        return NotModifiedResponse(answer.headers) if self.is_not_modified(answer.headers, asked) else answer


class _WholeFile(FileResponse):
    """A file that is sent whole: Starlette refuses a range that it does not understand, and not in JSON."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [one for one in scope["headers"] if one[0] != b"range"]  # as RFC 9110, 14.2 allows
        await super().__call__({**scope, "headers": headers}, receive, send)


def _packed_response(whole: FileResponse, stat_result: os.stat_result) -> Response:
    headers = {
        "content-encoding": "gzip",
        "content-type": whole.headers["content-type"],
        "last-modified": whole.headers["last-modified"],
        "etag": f'{whole.headers["etag"].removesuffix(chr(34))}-gzip"',
    }
    return Response(
        _packed(str(whole.path), stat_result.st_mtime_ns, stat_result.st_size), whole.status_code, headers
    )


@lru_cache(_PACKED_FILES)
def _packed(path: str, modified: int, size: int) -> bytes:
    """The file, packed; ``modified`` and ``size`` only say which version it is."""
    with open(path, "rb") as file:
        return gzip.compress(file.read(), mtime=0)


def _takes_gzip(accepted: str) -> bool:
    """Whether an ``Accept-Encoding`` has gzip with a weight above zero, or leaves it open with ``*``."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        try:
            weights[name.strip()] = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            weights[name.strip()] = 0
    return weights.get("gzip", weights.get("*", 0)) > 0


__all__ = ["Assets"]
