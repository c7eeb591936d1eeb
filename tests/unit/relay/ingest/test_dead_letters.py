"""Dead letters: what they say, and that a server takes them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.events import Rejection, RejectionReason
from tickertape.contracts.subjects import find_subject_error
from tickertape.relay.ingest.dead_letters import MAX_SUBJECT, DeadLetter, encode_dead_letter

from tickertape.names import Names

WHY = Rejection(RejectionReason.BAD_SUBJECT, "of this test")
LIMIT = 1_048_576


def written(headers: dict[str, str]) -> int:
    """Bytes of a header block, as a client writes it."""
    return len(b"NATS/1.0\r\n\r\n") + sum(
        len(f"{name}: {value}\r\n".encode()) for name, value in headers.items()
    )


def test_a_legal_subject_is_its_address() -> None:
    """Nothing is encoded, and the header block is not kept."""
    letter = DeadLetter("e-7", "log.info.x", b"body", WHY, b"NATS/1.0\r\nA: b\r\n\r\n")
    place, body, headers = encode_dead_letter(letter, Names("p"), LIMIT)
    assert (place, body) == ("p.rejected.log.info.x", b"body")
    assert headers == {
        "Tickertape-Reason": "bad_subject: of this test",
        "Tickertape-Sequence": "7",
        "Nats-Msg-Id": "e-7",
    }


@pytest.mark.parametrize(
    ("subject", "spelt"),
    [(".", "=.="), ("log.info.", "log.info.="), ("..x", "=.=.x"), ("a.=.*", "a.=3D.=2A")],
)
def test_an_illegal_subject_is_filed_under_a_legal_one(subject: str, spelt: str) -> None:
    """Also one with empty tokens; no two are spelt alike."""
    place, _, headers = encode_dead_letter(DeadLetter("e-7", subject, b"", WHY), Names(), LIMIT)
    assert place == f"rejected.{spelt}"
    assert find_subject_error(place) is None
    assert base64.b64decode(headers["Tickertape-Raw-Subject"]) == subject.encode()


def test_an_illegal_subject_is_spelt_and_kept() -> None:
    """Subject and header block come back byte for byte."""
    letter = DeadLetter("e-7", "log.info.\udcff", b"body", WHY, b"\xff")
    place, body, headers = encode_dead_letter(letter, Names("p"), LIMIT)
    assert (place, body) == ("p.rejected.log.info.=FF", b"body")
    assert base64.b64decode(headers["Tickertape-Raw-Subject"]) == b"p.log.info.\xff"
    assert base64.b64decode(headers["Tickertape-Raw-Headers"]) == b"\xff"
    assert "Tickertape-Raw-Headers-Size" not in headers


def test_a_body_that_could_not_be_read_is_said_to_be_missing() -> None:
    """An empty one is not."""
    assert (
        encode_dead_letter(DeadLetter("e-7", "x", None, WHY), Names(), LIMIT)[2]["Tickertape-Body"]
        == "unavailable"
    )
    assert "Tickertape-Body" not in encode_dead_letter(DeadLetter("e-7", "x", b"", WHY), Names(), LIMIT)[2]


@given(
    subject=st.binary(min_size=1, max_size=50),
    repeat=st.integers(1, 100),
    body=st.integers(0, LIMIT),
    block=st.integers(0, LIMIT),
    cut=st.sampled_from([4_096, 65_536, LIMIT]),
)
def test_a_server_takes_every_dead_letter(
    subject: bytes, repeat: int, body: int, block: int, cut: int
) -> None:
    """Its subject is legal and short enough, headers and body fit together, and the body goes first."""
    text = (subject * repeat).decode(errors="surrogateescape")
    letter = DeadLetter("e-7", text, b"x" * body, WHY, b"y" * block)
    place, data, headers = encode_dead_letter(letter, Names(), cut + 8_192)
    assert len(place.encode()) <= MAX_SUBJECT
    assert place == "rejected" or find_subject_error(place) is None
    assert written(headers) + len(data) <= cut + 8_192
    if len(data) < body:
        assert headers["Tickertape-Size"] == str(body)
    kept = len(base64.b64decode(headers.get("Tickertape-Raw-Headers", "")))
    if find_subject_error(text) is not None and kept < block:
        assert headers["Tickertape-Raw-Headers-Size"] == str(block)


@pytest.mark.parametrize("subject", ["log.info." + "\udcff" * 4_000, "x" * 5_000])
def test_a_subject_that_is_too_long_is_filed_under_its_beginning(subject: str) -> None:
    """The whole is in a header."""
    place, _, headers = encode_dead_letter(DeadLetter("e-7", subject, b"", WHY), Names(), LIMIT)
    assert place in ("rejected.log.info", "rejected")
    raw = base64.b64decode(headers.get("Tickertape-Raw-Subject", "")).decode(errors="surrogateescape")
    assert subject in (raw, headers.get("Tickertape-Subject", "").removeprefix("rejected."))
