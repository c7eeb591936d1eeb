"""Tests of who may come in, how many, and how fast."""

import pytest
from tickertape.relay.core.connection_limits import (
    REJECTION_COST,
    SERVER_LIMITS,
    Admission,
    ClientSlot,
    Limit,
    Limits,
)
from tickertape.relay.core.limit_counters import BURST_SECONDS, MAX_ADDRESSES, LocalLimitCounters


class Socket:
    """Remembers that it was cut."""

    def __init__(self) -> None:
        self.cut = False

    def abort(self) -> None:
        """Cut it."""
        self.cut = True


def come(admission: Admission, address: str = "192.0.2.1", now: float = 0.0) -> ClientSlot:
    """A visitor that is let in."""
    client_slot = admission.accept(address, Socket(), now)
    assert isinstance(client_slot, ClientSlot)
    return client_slot


def refused(admission: Admission, address: str = "192.0.2.1", now: float = 0.0) -> Limit:
    """The limit that keeps a visitor out."""
    limit = admission.accept(address, Socket(), now)
    assert isinstance(limit, Limit)
    return limit


def test_without_limits_everybody_comes_in() -> None:
    """And is counted, from the accept to the end of the socket."""
    admission = Admission(Limits())
    visitors = [come(admission) for _ in range(1_000)]
    assert (admission.open, admission.pending) == (1_000, 1_000)
    for client_slot in visitors:
        admission.mark_established(client_slot)
    assert (admission.open, admission.pending) == (1_000, 0)
    for client_slot in visitors:
        admission.release(client_slot)
    assert (admission.open, admission.pending, admission.rejected) == (0, 0, {})
    assert repr(admission) == f"Admission(0 open, 0 without a session, {Limits()})"


def test_a_socket_whose_session_has_ended_makes_room() -> None:
    """It counts as one without a session, behind those that were there before; sessions stay."""
    admission = Admission(Limits(unauthenticated=2))
    sockets = [Socket() for _ in range(4)]
    visitors = []
    for one in sockets:
        client_slot = admission.accept("a", one, 0.0)
        assert isinstance(client_slot, ClientSlot)
        admission.mark_established(client_slot)
        visitors.append(client_slot)
    for client_slot in visitors[:2]:
        admission.mark_pending(client_slot)
        admission.mark_pending(client_slot)
    assert (admission.pending, [one.cut for one in sockets]) == (2, [False] * 4)
    admission.mark_pending(visitors[2])
    come(admission)
    assert (admission.pending, [one.cut for one in sockets]) == (2, [True, True, False, False])
    assert admission.rejected == {Limit.UNAUTHENTICATED: 2}


def test_a_full_relay_lets_nobody_in_until_one_leaves() -> None:
    """That is the relay's affair, not the visitor's: 503."""
    admission = Admission(Limits(connections=2))
    first, _ = come(admission, "a"), come(admission, "b")
    assert refused(admission, "c") is Limit.CONNECTIONS
    assert Limit.CONNECTIONS in SERVER_LIMITS
    admission.release(first)
    come(admission, "c")
    assert admission.rejected == {Limit.CONNECTIONS: 1}


def test_an_address_has_so_many_sockets() -> None:
    """Others are not concerned, nor is one that is exempt."""
    admission = Admission(Limits(address_connections=2), lambda address: address == "127.0.0.1")
    first, _ = come(admission), come(admission)
    assert refused(admission) is Limit.ADDRESS_CONNECTIONS
    assert Limit.ADDRESS_CONNECTIONS not in SERVER_LIMITS
    come(admission, "192.0.2.2")
    for _ in range(5):
        come(admission, "127.0.0.1")
    admission.release(first)
    come(admission)
    assert refused(admission) is Limit.ADDRESS_CONNECTIONS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("not:an:address", "not:an:address", True),
        ("not:an:address", "not:another", False),
        ("", "", True),
    ],
)
def test_an_ipv6_client_is_counted_by_its_network(one: str, other: str, *, same: bool) -> None:
    """Whoever has one address of a /64 has all of them; an IPv4 address is the same when it is mapped."""
    admission = Admission(Limits(address_connections=1))
    come(admission, one)
    decided = admission.accept(other, Socket(), 0.0)
    assert (decided is Limit.ADDRESS_CONNECTIONS) is same


def test_an_address_comes_at_its_rate() -> None:
    """A burst of ten seconds at once, then one for each that comes back; no more than the burst is saved."""
    admission = Admission(Limits(address_rate=2.0))
    for _ in range(int(2 * BURST_SECONDS)):
        come(admission)
    assert refused(admission) is Limit.ADDRESS_RATE
    come(admission, "192.0.2.2")
    come(admission, now=0.5)
    assert refused(admission, now=0.5) is Limit.ADDRESS_RATE
    for _ in range(int(2 * BURST_SECONDS)):
        come(admission, now=1_000.0)
    assert refused(admission, now=1_000.0) is Limit.ADDRESS_RATE


def test_a_clock_that_stands_gives_nothing_back() -> None:
    """Nor does one that goes back."""
    admission = Admission(Limits(address_rate=0.1))
    come(admission, now=50.0)
    assert refused(admission, now=50.0) is Limit.ADDRESS_RATE
    assert refused(admission, now=10.0) is Limit.ADDRESS_RATE
    assert refused(admission, now=59.9) is Limit.ADDRESS_RATE
    come(admission, now=60.1)


def test_strangers_run_out_ten_times_as_fast() -> None:
    """A fault costs nine beside the one that coming in cost."""
    admission = Admission(Limits(address_rate=10.0))
    for _ in range(10):
        admission.penalize(come(admission).address, 0.0)
    assert REJECTION_COST == 10
    assert refused(admission) is Limit.ADDRESS_RATE


def test_what_is_owed_is_bounded() -> None:
    """After a thousand faults an address waits as long as it takes to fill up, and is let in again."""
    admission = Admission(Limits(address_rate=10.0))
    for _ in range(1_000):
        admission.penalize("192.0.2.1", 0.0)
    assert refused(admission, now=BURST_SECONDS) is Limit.ADDRESS_RATE
    come(admission, now=BURST_SECONDS + 0.2)


def test_an_exempt_address_owes_nothing() -> None:
    """Many are behind it: none of them may shut out the others."""
    admission = Admission(Limits(address_rate=0.1), lambda address: address == "127.0.0.1")
    for _ in range(100):
        admission.penalize(come(admission, "127.0.0.1").address, 0.0)
    come(admission, "127.0.0.1")


def test_all_together_come_at_a_rate() -> None:
    """However many addresses they come from; that, too, is the relay's affair."""
    admission = Admission(Limits(connection_rate=1.0))
    for number in range(int(BURST_SECONDS)):
        come(admission, f"192.0.2.{number}")
    assert refused(admission, "192.0.2.99") is Limit.CONNECTION_RATE
    assert Limit.CONNECTION_RATE in SERVER_LIMITS
    come(admission, "192.0.2.99", now=1.0)
    assert refused(admission, "192.0.2.99", now=1.0) is Limit.CONNECTION_RATE


def test_whoever_is_kept_out_by_its_address_costs_the_others_nothing() -> None:
    """One address that floods does not use up what all may do together."""
    admission = Admission(Limits(connection_rate=1.0, address_connections=1))
    come(admission)
    for _ in range(1_000):
        assert refused(admission) is Limit.ADDRESS_CONNECTIONS
    for number in range(int(BURST_SECONDS) - 1):
        come(admission, f"192.0.2.{number + 2}")


def test_the_oldest_without_a_session_makes_room() -> None:
    """Whoever has a session stays, however old."""
    admission = Admission(Limits(unauthenticated=2))
    sockets = [Socket() for _ in range(5)]
    visitors = [admission.accept("192.0.2.1", socket, 0.0) for socket in sockets[:2]]
    assert isinstance(visitors[0], ClientSlot)
    admission.mark_established(visitors[0])
    for socket in sockets[2:]:
        assert isinstance(admission.accept("192.0.2.1", socket, 0.0), ClientSlot)
    assert [socket.cut for socket in sockets] == [False, True, True, False, False]
    assert admission.rejected == {Limit.UNAUTHENTICATED: 2}
    assert admission.pending == 2
    assert not admission.is_pending(visitors[0])


def test_a_visitor_that_was_cut_leaves_once() -> None:
    """It counts as open until its socket is closed."""
    admission = Admission(Limits(unauthenticated=1))
    first = come(admission)
    assert admission.is_pending(first)
    second = come(admission)
    assert not admission.is_pending(first)
    assert admission.open == 2
    admission.release(first)
    assert (admission.open, admission.pending) == (1, 1)
    admission.release(second)
    assert (admission.open, admission.pending) == (0, 0)


def test_a_proxy_says_who_a_visitor_is() -> None:
    """It is counted under the client's address from then on, and no longer under the proxy's."""
    admission = Admission(Limits(address_connections=1), lambda address: address == "10.0.0.1")
    proxied = [come(admission, "10.0.0.1") for _ in range(3)]
    assert admission.admit_request(proxied[0], "192.0.2.1", 0.0) is None
    assert proxied[0].address == "192.0.2.1"
    assert admission.admit_request(proxied[1], "192.0.2.1", 0.0) is Limit.ADDRESS_CONNECTIONS
    assert proxied[1].address == "10.0.0.1"
    assert admission.admit_request(proxied[1], "192.0.2.2", 0.0) is None
    admission.release(proxied[0])
    assert admission.admit_request(proxied[2], "192.0.2.1", 0.0) is None
    assert admission.rejected == {Limit.ADDRESS_CONNECTIONS: 1}


def test_a_full_relay_is_no_reason_to_refuse_a_request_of_the_same_client() -> None:
    """It is inside already."""
    admission = Admission(Limits(connections=1, address_connections=1))
    client_slot = come(admission)
    assert admission.admit_request(client_slot, "192.0.2.1", 0.0) is None


def test_requests_have_the_rate_of_their_address() -> None:
    """Each on one socket costs what a new socket would."""
    admission = Admission(Limits(address_rate=1.0))
    client_slot = come(admission)
    asked = [admission.admit_request(client_slot, "192.0.2.1", 0.0) for _ in range(int(BURST_SECONDS))]
    assert asked == [None] * 9 + [Limit.ADDRESS_RATE]
    assert admission.admit_request(client_slot, "192.0.2.1", 1.0) is None


def test_a_subject_has_so_many_sessions() -> None:
    """Its grant may say otherwise; none without a subject is counted."""
    admission = Admission(Limits(subject_connections=1))
    visitors = [come(admission) for _ in range(6)]
    assert admission.bind(visitors[0], "alice", None)
    assert admission.bind(visitors[0], "alice", None), "the same once more is no second one"
    assert not admission.bind(visitors[1], "alice", None)
    assert admission.bind(visitors[1], "bob", None)
    assert admission.bind(visitors[2], "alice", 2)
    assert not admission.bind(visitors[3], "alice", 2)
    assert admission.bind(visitors[4], "", None)
    assert admission.bind(visitors[5], "", 1)
    assert admission.rejected == {Limit.SUBJECT_CONNECTIONS: 2}
    admission.release(visitors[2])
    admission.release(visitors[0])
    assert admission.bind(visitors[3], "alice", None)


def test_a_renewed_token_may_be_of_another_subject() -> None:
    """The former is counted down; where the other has enough, nothing changes."""
    admission = Admission(Limits(subject_connections=1))
    one, other = come(admission), come(admission)
    assert admission.bind(one, "alice", None)
    assert admission.bind(other, "bob", None)
    assert not admission.bind(one, "bob", None)
    assert one.subject == "alice"
    assert admission.bind(one, "carol", None)
    assert admission.bind(other, "alice", None)
    assert admission.bind(other, "", None)
    assert admission.bind(one, "alice", None)


def test_without_a_limit_a_subject_has_any_number() -> None:
    """Also when its grant says nothing."""
    admission = Admission(Limits())
    assert all(admission.bind(come(admission), "alice", None) for _ in range(500))


def test_whoever_owes_nothing_is_forgotten() -> None:
    """What is kept of addresses does not grow with those who once were here."""
    counters = LocalLimitCounters()
    admission = Admission(Limits(address_rate=1.0), counters=counters)
    for number in range(100):
        admission.release(come(admission, f"192.0.2.{number}"))
    admission.penalize("192.0.2.1", 0.0)
    assert len(counters.remembered) == 100
    admission.prune(0.5)
    assert len(counters.remembered) == 100
    admission.prune(1.0)
    assert counters.remembered == ["@192.0.2.1"]
    admission.prune(1.0)
    admission.prune(10.0)
    assert not counters.remembered
    assert counters.counted == 0
    assert repr(counters) == "LocalLimitCounters(0 keys, 0 token buckets)"


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was heard of longest ago is forgotten first."""
    monkeypatch.setattr("tickertape.relay.core.limit_counters.MAX_ADDRESSES", 3)
    assert MAX_ADDRESSES == 100_000
    counters = LocalLimitCounters()
    admission = Admission(Limits(address_rate=1.0), counters=counters)
    for number in (0, 1, 2, 0, 3, 4):
        come(admission, f"192.0.2.{number}")
    assert counters.remembered == ["@192.0.2.0", "@192.0.2.3", "@192.0.2.4"]


def test_many_addresses_are_forgotten_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that left takes no turn of the event loop for itself."""
    monkeypatch.setattr("tickertape.relay.core.limit_counters.PRUNE_BATCH", 2)
    counters = LocalLimitCounters()
    admission = Admission(Limits(address_rate=1.0), counters=counters)
    for number in range(5):
        come(admission, f"192.0.2.{number}")
    left = []
    for _ in range(3):
        admission.prune(100.0)
        left.append(len(counters.remembered))
    assert left == [3, 1, 0]
