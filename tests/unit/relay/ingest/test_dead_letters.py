"""Dead letters: their subject, headers and body, and the limits of the server."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.events import Rejection, RejectionReason
from tickertape.contracts.subjects import find_subject_error
from tickertape.relay.ingest.dead_letters import (
    MAX_QUEUED,
    MAX_QUEUED_BYTES,
    MAX_SUBJECT,
    SHARES,
    DeadLetter,
    DeadLetters,
    encode_dead_letter,
)

from tickertape.names import Names

REJECTION = Rejection(RejectionReason.BAD_SUBJECT, "of this test")
LIMIT = 1_048_576


def header_size(headers: dict[str, str]) -> int:
    """Return the size of a header block in bytes, as a NATS client encodes it."""
    return len(b"NATS/1.0\r\n\r\n") + sum(
        len(f"{name}: {value}\r\n".encode()) for name, value in headers.items()
    )


def test_a_valid_subject_is_used_unchanged() -> None:
    """A valid subject is used without encoding, and the original header block is not kept."""
    letter = DeadLetter("e-7", "log.info.x", b"body", REJECTION, b"NATS/1.0\r\nA: b\r\n\r\n")
    target, body, headers = encode_dead_letter(letter, Names("p"), LIMIT)
    assert (target, body) == ("p.rejected.log.info.x", b"body")
    assert headers == {
        "Tickertape-Reason": "bad_subject: of this test",
        "Tickertape-Sequence": "7",
        "Nats-Msg-Id": "e-7",
    }


@pytest.mark.parametrize(
    ("subject", "encoded"),
    [(".", "=.="), ("log.info.", "log.info.="), ("..x", "=.=.x"), ("a.=.*", "a.=3D.=2A")],
)
def test_an_invalid_subject_is_encoded_as_a_valid_one(subject: str, encoded: str) -> None:
    """An invalid subject, also one with empty tokens, is encoded as a unique valid one."""
    target, _, headers = encode_dead_letter(DeadLetter("e-7", subject, b"", REJECTION), Names(), LIMIT)
    assert target == f"rejected.{encoded}"
    assert find_subject_error(target) is None
    assert base64.b64decode(headers["Tickertape-Raw-Subject"]) == subject.encode()


def test_an_invalid_subject_is_kept_in_a_header() -> None:
    """An invalid subject and its header block are kept byte for byte in headers."""
    letter = DeadLetter("e-7", "log.info.\udcff", b"body", REJECTION, b"\xff")
    target, body, headers = encode_dead_letter(letter, Names("p"), LIMIT)
    assert (target, body) == ("p.rejected.log.info.=FF", b"body")
    assert base64.b64decode(headers["Tickertape-Raw-Subject"]) == b"p.log.info.\xff"
    assert base64.b64decode(headers["Tickertape-Raw-Headers"]) == b"\xff"
    assert "Tickertape-Raw-Headers-Size" not in headers


def test_an_unavailable_body_is_marked() -> None:
    """A body that could not be read is marked as unavailable, unlike an empty one."""
    headers = encode_dead_letter(DeadLetter("e-7", "x", None, REJECTION), Names(), LIMIT)[2]
    assert headers["Tickertape-Body"] == "unavailable"
    headers = encode_dead_letter(DeadLetter("e-7", "x", b"", REJECTION), Names(), LIMIT)[2]
    assert "Tickertape-Body" not in headers


@given(
    subject=st.binary(min_size=1, max_size=50),
    repeat=st.integers(1, 100),
    body=st.integers(0, LIMIT),
    block=st.integers(0, LIMIT),
    allowance=st.sampled_from([4_096, 65_536, LIMIT]),
)
def test_every_dead_letter_is_within_the_limits(
    subject: bytes, repeat: int, body: int, block: int, allowance: int
) -> None:
    """Any dead letter has a valid, short subject and a size within the limit; the body has priority."""
    text = (subject * repeat).decode(errors="surrogateescape")
    letter = DeadLetter("e-7", text, b"x" * body, REJECTION, b"y" * block)
    target, data, headers = encode_dead_letter(letter, Names(), allowance + 8_192)
    assert len(target.encode()) <= MAX_SUBJECT
    assert target == "rejected" or find_subject_error(target) is None
    assert header_size(headers) + len(data) <= allowance + 8_192
    if len(data) < body:
        assert headers["Tickertape-Size"] == str(body)
    kept = len(base64.b64decode(headers.get("Tickertape-Raw-Headers", "")))
    if find_subject_error(text) is not None and kept < block:
        assert headers["Tickertape-Raw-Headers-Size"] == str(block)


@pytest.mark.parametrize("subject", ["log.info." + "\udcff" * 4_000, "x" * 5_000])
def test_a_long_subject_is_shortened(subject: str) -> None:
    """A long subject is shortened to its first tokens, and the complete one is kept in a header."""
    target, _, headers = encode_dead_letter(DeadLetter("e-7", subject, b"", REJECTION), Names(), LIMIT)
    assert target in ("rejected.log.info", "rejected")
    raw = base64.b64decode(headers.get("Tickertape-Raw-Subject", "")).decode(errors="surrogateescape")
    assert subject in (raw, headers.get("Tickertape-Subject", "").removeprefix("rejected."))


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_source_leaves_room_for_others(size: int) -> None:
    """While a source floods the queue, in number or in bytes, dead letters of others are queued."""
    letters = DeadLetters(Names())

    def add(subject: str, size: int) -> bool:
        before = len(letters)
        letters.add(DeadLetter("e-1", subject, b"x" * size, REJECTION))
        return len(letters) > before

    kept = sum(add(f"log.info.noisy.{number}", size) for number in range(MAX_QUEUED))
    assert kept == min(MAX_QUEUED, MAX_QUEUED_BYTES // size) // SHARES
    assert add("log.info.quiet", size)
    assert add("log.warn.noisy", size)
    assert not add("log.info.noisy", size)
    letters.remove_oldest()
    assert add("log.info.noisy", size), "room that is left can be used again"
