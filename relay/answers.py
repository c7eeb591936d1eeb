"""Answers over HTTP: refusals in the words of the protocol, who may read them, and large ones in pieces."""

from typing import Final

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from contracts.codes import CLOSE_CODES, ErrorCode
from contracts.wire import WireError
from relay.core.session import RETRY_AFTER_MS, close_code
from relay.entrance import Entrance, Headers, value_of

_PIECE: Final = 64 * 1024


def refusal(error: WireError, status: int | None = None) -> Response:
    """The answer that says why something is refused.

    Args:
        error: why.
        status: of the answer; None takes the one that goes with the error's close code.
    """
    code = close_code(error)
    headers = {"WWW-Authenticate": "Bearer"} if error.code is ErrorCode.UNAUTHORIZED else {}
    if code in RETRY_AFTER_MS:
        headers["Retry-After"] = str(RETRY_AFTER_MS[code] // 1000)
    body = {"code": error.code, "message": error.message}
    return JSONResponse(body, status or CLOSE_CODES[code].http_status or 400, headers=headers)


def headers_of(scope: Scope) -> Headers:
    """Headers of a request, as the entrance reads them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def peer(scope: Scope) -> str:
    """Address of a request's socket; empty when it has none."""
    return scope["client"][0] if scope["client"] else ""


def cors(entrance: Entrance, headers: Headers) -> dict[str, str]:
    """What lets a page of the allow list read an answer."""
    origin = value_of(headers, "origin")
    if origin is None or not entrance.origins.listed(origin):
        return {"Vary": "Origin"}
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "authorization",
        "Access-Control-Max-Age": "600",
    }


class Pieces(Response):
    """An answer that is written as fast as its reader takes it, so that its end is known here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), _PIECE):
            piece = bytes(self.body[start : start + _PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
