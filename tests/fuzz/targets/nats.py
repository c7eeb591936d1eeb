"""Targets: what a NATS server, and through it any publisher, sends to every program."""

from tickertape.nats.wire.headers import Headers, server_header
from tickertape.nats.wire.protocol_parser import (
    Info,
    Message,
    Operation,
    ParserError,
    Ping,
    ProtocolParser,
    ServerError,
)


def nats_protocol(data: bytes) -> None:
    """Check that operations do not depend on the chunks, and survive being encoded again."""
    size, data = (data[0] % 50 + 1, data[1:]) if data else (1, data)
    complete = _parse([data])
    assert _parse([data[start : start + size] for start in range(0, len(data), size)]) == complete
    operations, _ = complete
    again, _ = _parse([b"".join(map(_encode, operations))])
    assert again == operations
    # An operation without a text is encoded with one more space.
    assert sum(len(_encode(one)) - 1 for one in operations) <= len(data)


def _parse(chunks: list[bytes]) -> tuple[list[Operation], str]:
    parser, found = ProtocolParser(), list[Operation]()
    try:
        for chunk in chunks:
            found += parser.receive_data(chunk)
    except ParserError as error:
        # A line that is too long is noticed after another chunk, depending on its size.
        return found, "" if "exceeds" in str(error) else str(error)
    return found, ""


def _encode(operation: Operation) -> bytes:
    match operation:
        case Message(sid, subject, reply, headers, data):
            parts = [
                b"MSG" if headers is None else b"HMSG",
                subject,
                b"%d" % sid,
                *([reply] if reply else []),
            ]
            parts += [] if headers is None else [b"%d" % len(headers)]
            data = (headers or b"") + data
            return b"%b %d\r\n%b\r\n" % (b" ".join(parts), len(data), data)
        case Info(text):
            return b"INFO %b\r\n" % text
        case ServerError(text):
            return b"-ERR %b\r\n" % text
        case Ping():
            return b"PING\r\n"
    return b"PONG\r\n"


def nats_headers(data: bytes) -> None:
    """Check that a block is never an error, and that a valid block is reproduced."""
    headers = Headers(data)
    for name, value in headers.items():
        (name + value).encode()
        assert "\n" not in name
        assert len(value) <= len(data)
    assert ("Status" in headers) <= data.startswith(b"NATS/1.0 ")
    if headers.well_formed and "Status" not in headers:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        again = Headers(f"NATS/1.0\r\n{lines}\r\n".encode())
        assert (again, again.well_formed) == (headers, True)
    server_header(data, "Nats-Sequence").encode()
