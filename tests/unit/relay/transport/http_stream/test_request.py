"""Requests for HTTP streams."""

import pytest
from tickertape.relay.transport.http.request_head import is_stream
from tickertape.relay.transport.http_stream.request import STREAMS, StreamRequest


@pytest.mark.parametrize(
    ("accept", "gzip"),
    [
        ("gzip", True), ("gzip, deflate, br", True), ("br;q=1.0, GZIP;q=0.5", True), ("x-gzip", True),
        ("gzip;q=0", False), ("gzip; q=0.000", False), ("identity", False), ("", False), ("*", False),
    ],
)  # fmt: skip
def test_compression_is_negotiated(accept: str, gzip: bool) -> None:
    """The body is compressed for clients that say so."""
    request = StreamRequest.parse("/sse?a=b", [("accept-encoding", accept)], "GET", "1.1")
    assert request.select_encoding().gzip is gzip
    assert request.query == "a=b"


def test_chunks_need_http_1_1() -> None:
    """HTTP/1.0 has no chunks, and a host's server divides a body itself."""
    for version, chunked in (("1.0", False), ("1.1", True)):
        request = StreamRequest.parse("/stream", [], "GET", version)
        assert request.select_encoding().chunked is chunked
        assert not request.select_encoding(chunked=False).chunked


def test_only_sse_has_event_ids_and_cookies() -> None:
    """The position and the cookie of a browser mean nothing to the other stream."""
    headers = [("last-event-id", "a-1~snapshot"), ("cookie", "tickertape_session=x")]
    sse = StreamRequest.parse("/%73se", headers, "GET", "1.1")
    offer = sse.read_offer(headers)
    assert (offer.token, str(offer.resume), offer.snapshot, offer.after_upgrade) == ("x", "a-1", True, True)
    lines = StreamRequest.parse("/stream", headers, "GET", "1.1")
    offer = lines.read_offer(headers)
    assert (offer.token, offer.resume, offer.after_upgrade) == (None, None, False)


@pytest.mark.parametrize("path", STREAMS)
def test_the_http_protocol_knows_the_paths(path: str) -> None:
    """What is a stream here is handed over there, and nothing else."""
    assert is_stream(b"GET", path.encode())
    assert is_stream(b"HEAD", path.encode() + b"?x=\n")
    for target in (path + "/", path + "x", "/x" + path):
        assert not is_stream(b"GET", target.encode())
    assert not is_stream(b"POST", path.encode())
