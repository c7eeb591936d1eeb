"""Leases and votes as messages, which any client with the permission may publish."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import MAX_EVENT_BYTES, Rejection, Status, format_time
from tickertape.producers.monitor.coordination import vote_messages
from tickertape.producers.monitor.gateway.majority import View, Vote

from tests.support.json_values import VALUES
from tests.unit.producers.monitor.gateway.test_state import known_gateway

NOW = 1_750_000_000.0
VIEW = View(
    Status.UNHEALTHY,
    format_time(NOW),
    {"probes": {"tcp": "UNHEALTHY"}, "probe": "tcp", "error": "connection refused", "latency_ms": 1.5},
)
DETAILS = ("probes", "probe", "error", "latency_ms", "other")
KEYS = ("instance", "status", "since", "details")
BODIES = st.fixed_dictionaries({}, optional={
    **dict.fromkeys(KEYS, VALUES),
    "instance": st.just("i") | VALUES,
    "status": st.sampled_from(list(Status)) | VALUES,
    "since": st.just(format_time(NOW)) | VALUES,
    "details": st.dictionaries(st.sampled_from(DETAILS), VALUES) | VALUES,
})  # fmt: skip


def test_votes_and_leases_are_read_as_written() -> None:
    """A vote and a lease are decoded as they were encoded, and so are their subjects."""
    assert vote_messages.decode_vote(vote_messages.encode_vote("i", VIEW), 7) == Vote("i", VIEW, 7)
    assert vote_messages.decode_lease(vote_messages.encode_lease("i")) == ("i", False)
    assert vote_messages.decode_lease(vote_messages.encode_lease("i", released=True)) == ("i", True)
    subject = vote_messages.vote_subject("gateway.status.ctp.tcp=2Emain", "host.example")
    assert subject == "watchdog.vote.ctp.tcp=2Emain.host=2Eexample"
    assert vote_messages.parse_vote_subject(subject) == ("gateway.status.ctp.tcp=2Emain", "host.example")
    lease = vote_messages.lease_subject("host.example")
    assert vote_messages.parse_lease_subject(lease) == "host.example"
    assert vote_messages.parse_vote_subject(lease) is None


@pytest.mark.parametrize("subject", ["watchdog.vote.ctp.main", "watchdog.vote.ctp.main.=zz", "watchdog.vote"])
def test_other_subjects_are_no_votes(subject: str) -> None:
    """A subject that is not that of a vote has no gateway."""
    assert vote_messages.parse_vote_subject(subject) is None


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"instance":1}', b"\xff"])
def test_an_invalid_body_is_neither_a_lease_nor_a_vote(body: bytes) -> None:
    """An empty body withdraws a vote, and an invalid one counts as that."""
    assert vote_messages.decode_lease(body) is None
    assert vote_messages.decode_vote(body, 1) is None


@given(BODIES)
def test_whatever_a_vote_contains_the_event_is_valid(body: dict[str, Any]) -> None:
    """The event that a vote decides is valid, even if another client has published the vote."""
    payload = orjson.dumps(body)
    vote_messages.decode_lease(payload)
    vote = vote_messages.decode_vote(payload, 1)
    if vote is None:
        return
    event = known_gateway().decide({"m1": vote}, 1, NOW)
    if event is not None:
        encoded = event.encode()
        assert len(encoded) <= MAX_EVENT_BYTES
        assert not isinstance(decode(event.subject, encoded), Rejection)
