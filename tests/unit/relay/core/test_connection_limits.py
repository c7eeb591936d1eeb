"""Limits on the number and the rate of connections."""

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
    """Connection that records whether it was aborted."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        """Record the abort."""
        self.aborted = True


def admit(admission: Admission, address: str = "192.0.2.1", now: float = 0.0) -> ClientSlot:
    """Accept a connection that has to be admitted."""
    client_slot = admission.accept(address, Socket(), now)
    assert isinstance(client_slot, ClientSlot)
    return client_slot


def rejected_by(admission: Admission, address: str = "192.0.2.1", now: float = 0.0) -> Limit:
    """Return the limit that rejects a connection."""
    limit = admission.accept(address, Socket(), now)
    assert isinstance(limit, Limit)
    return limit


def test_without_limits_every_connection_is_admitted() -> None:
    """Without limits every connection is admitted, and it is counted until it is released."""
    admission = Admission(Limits())
    slots = [admit(admission) for _ in range(1_000)]
    assert (admission.open, admission.pending) == (1_000, 1_000)
    for client_slot in slots:
        admission.mark_established(client_slot)
    assert (admission.open, admission.pending) == (1_000, 0)
    for client_slot in slots:
        admission.release(client_slot)
    assert (admission.open, admission.pending, admission.rejected) == (0, 0, {})
    assert repr(admission) == f"Admission(0 open, 0 without a session, {Limits()})"


def test_a_connection_whose_session_ended_can_be_evicted() -> None:
    """A connection whose session has ended counts as pending, behind those that were pending before it."""
    admission = Admission(Limits(unauthenticated=2))
    sockets = [Socket() for _ in range(4)]
    slots = []
    for one in sockets:
        client_slot = admission.accept("a", one, 0.0)
        assert isinstance(client_slot, ClientSlot)
        admission.mark_established(client_slot)
        slots.append(client_slot)
    for client_slot in slots[:2]:
        admission.mark_pending(client_slot)
        admission.mark_pending(client_slot)
    assert (admission.pending, [one.aborted for one in sockets]) == (2, [False] * 4)
    admission.mark_pending(slots[2])
    admit(admission)
    assert (admission.pending, [one.aborted for one in sockets]) == (2, [True, True, False, False])
    assert admission.rejected == {Limit.UNAUTHENTICATED: 2}


def test_a_full_relay_rejects_until_a_connection_is_released() -> None:
    """At the server's connection limit (503) new connections are rejected until one is released."""
    admission = Admission(Limits(connections=2))
    first, _ = admit(admission, "a"), admit(admission, "b")
    assert rejected_by(admission, "c") is Limit.CONNECTIONS
    assert Limit.CONNECTIONS in SERVER_LIMITS
    admission.release(first)
    admit(admission, "c")
    assert admission.rejected == {Limit.CONNECTIONS: 1}


def test_connections_per_address_are_limited() -> None:
    """The limit of connections per address applies to each address separately and not to exempt addresses."""
    admission = Admission(Limits(address_connections=2), lambda address: address == "127.0.0.1")
    first, _ = admit(admission), admit(admission)
    assert rejected_by(admission) is Limit.ADDRESS_CONNECTIONS
    assert Limit.ADDRESS_CONNECTIONS not in SERVER_LIMITS
    admit(admission, "192.0.2.2")
    for _ in range(5):
        admit(admission, "127.0.0.1")
    admission.release(first)
    admit(admission)
    assert rejected_by(admission) is Limit.ADDRESS_CONNECTIONS


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
    """IPv6 clients are counted by their /64 network, and IPv4-mapped addresses as IPv4."""
    admission = Admission(Limits(address_connections=1))
    admit(admission, one)
    decided = admission.accept(other, Socket(), 0.0)
    assert (decided is Limit.ADDRESS_CONNECTIONS) is same


def test_an_address_connects_at_its_rate() -> None:
    """An address may open a burst worth ten seconds of its rate, then one connection per refilled token."""
    admission = Admission(Limits(address_rate=2.0))
    for _ in range(int(2 * BURST_SECONDS)):
        admit(admission)
    assert rejected_by(admission) is Limit.ADDRESS_RATE
    admit(admission, "192.0.2.2")
    admit(admission, now=0.5)
    assert rejected_by(admission, now=0.5) is Limit.ADDRESS_RATE
    for _ in range(int(2 * BURST_SECONDS)):
        admit(admission, now=1_000.0)
    assert rejected_by(admission, now=1_000.0) is Limit.ADDRESS_RATE


def test_a_stopped_clock_refills_nothing() -> None:
    """A clock that stops or goes back refills no tokens."""
    admission = Admission(Limits(address_rate=0.1))
    admit(admission, now=50.0)
    assert rejected_by(admission, now=50.0) is Limit.ADDRESS_RATE
    assert rejected_by(admission, now=10.0) is Limit.ADDRESS_RATE
    assert rejected_by(admission, now=59.9) is Limit.ADDRESS_RATE
    admit(admission, now=60.1)


def test_untrusted_clients_run_out_ten_times_as_fast() -> None:
    """A failed authentication costs ten tokens in all, so untrusted clients run out ten times as fast."""
    admission = Admission(Limits(address_rate=10.0))
    for _ in range(10):
        admission.penalize(admit(admission).address, 0.0)
    assert REJECTION_COST == 10
    assert rejected_by(admission) is Limit.ADDRESS_RATE


def test_the_debt_of_an_address_is_bounded() -> None:
    """The debt of an address is bounded by its burst, however many penalties it gets."""
    admission = Admission(Limits(address_rate=10.0))
    for _ in range(1_000):
        admission.penalize("192.0.2.1", 0.0)
    assert rejected_by(admission, now=BURST_SECONDS) is Limit.ADDRESS_RATE
    admit(admission, now=BURST_SECONDS + 0.2)


def test_an_exempt_address_is_not_penalized() -> None:
    """An exempt address is never penalized, since many clients may connect through it."""
    admission = Admission(Limits(address_rate=0.1), lambda address: address == "127.0.0.1")
    for _ in range(100):
        admission.penalize(admit(admission, "127.0.0.1").address, 0.0)
    admit(admission, "127.0.0.1")


def test_the_global_connection_rate_is_limited() -> None:
    """The global connection rate applies across all addresses; it is a limit of the server."""
    admission = Admission(Limits(connection_rate=1.0))
    for number in range(int(BURST_SECONDS)):
        admit(admission, f"192.0.2.{number}")
    assert rejected_by(admission, "192.0.2.99") is Limit.CONNECTION_RATE
    assert Limit.CONNECTION_RATE in SERVER_LIMITS
    admit(admission, "192.0.2.99", now=1.0)
    assert rejected_by(admission, "192.0.2.99", now=1.0) is Limit.CONNECTION_RATE


def test_rejections_by_address_use_no_global_rate() -> None:
    """Connections rejected by a limit of their address use up none of the global connection rate."""
    admission = Admission(Limits(connection_rate=1.0, address_connections=1))
    admit(admission)
    for _ in range(1_000):
        assert rejected_by(admission) is Limit.ADDRESS_CONNECTIONS
    for number in range(int(BURST_SECONDS) - 1):
        admit(admission, f"192.0.2.{number + 2}")


def test_a_connection_beyond_its_own_limit_is_told_so_by_a_full_relay() -> None:
    """A client beyond its own limit is rejected by that one, also when the relay is full."""
    admission = Admission(Limits(connections=2, address_connections=1))
    first, _ = admit(admission), admit(admission, "192.0.2.2")
    assert rejected_by(admission) is Limit.ADDRESS_CONNECTIONS
    assert rejected_by(admission, "192.0.2.3") is Limit.CONNECTIONS
    admission.release(first)
    admit(admission, "192.0.2.3")


def relayed(admission: Admission, now: float = 0.0) -> ClientSlot:
    """Accept a connection of the trusted proxy."""
    client_slot = admission.accept("10.0.0.1", Socket(), now, relayed=True)
    assert isinstance(client_slot, ClientSlot)
    return client_slot


def proxied(limits: Limits) -> Admission:
    """Return admission control behind a trusted proxy."""
    return Admission(limits, lambda address: address == "10.0.0.1")


def test_a_client_behind_a_proxy_uses_up_its_own_rate_only() -> None:
    """What a client's own limits reject is not charged to the rate of all, also on a proxy's sockets."""
    admission = proxied(Limits(connection_rate=2.0, address_rate=0.5))
    decided = [admission.admit_request(relayed(admission), "192.0.2.1", 0.0) for _ in range(1_000)]
    assert decided == [None] * 5 + [Limit.ADDRESS_RATE] * 995
    others = [admission.admit_request(relayed(admission), f"192.0.2.{n}", 0.0) for n in range(2, 20)]
    assert others == [None] * 15 + [Limit.CONNECTION_RATE] * 3


def test_a_socket_of_a_proxy_is_charged_to_the_rate_of_all_once() -> None:
    """A socket is charged with its first request that its client's limits admit, and not again."""
    admission = proxied(Limits(connection_rate=0.2, address_rate=0.1))
    one, other, late = relayed(admission), relayed(admission), relayed(admission)
    assert [admission.admit_request(one, f"192.0.2.{n}", 0.0) for n in range(5)] == [None] * 5
    assert admission.admit_request(other, "192.0.2.1", 0.0) is other.exceeded is Limit.ADDRESS_RATE
    assert admission.admit_request(other, "192.0.2.9", 0.0) is other.exceeded is None
    assert admission.admit_request(late, "192.0.2.10", 0.0) is Limit.CONNECTION_RATE


def test_a_client_cannot_displace_the_handshakes_of_others() -> None:
    """However many sockets one client opens, directly or through a proxy, those of others are not closed."""
    for behind_proxy in (False, True):
        admission = proxied(Limits(unauthenticated=10))
        quiet = Socket()
        admission.accept("192.0.2.2", quiet, 0.0)
        sockets = [Socket() for _ in range(100)]
        for one in sockets:
            address = "10.0.0.1" if behind_proxy else "192.0.2.1"
            client_slot = admission.accept(address, one, 0.0, relayed=behind_proxy)
            assert isinstance(client_slot, ClientSlot)
            if behind_proxy:
                assert admission.admit_request(client_slot, "192.0.2.1", 0.0) is None
        assert not quiet.aborted
        assert [one.aborted for one in sockets] == [True] * 91 + [False] * 9


def test_the_oldest_pending_connection_is_evicted() -> None:
    """The oldest pending connection is evicted to admit a new one; established sessions never are."""
    admission = Admission(Limits(unauthenticated=2))
    sockets = [Socket() for _ in range(5)]
    slots = [admission.accept("192.0.2.1", socket, 0.0) for socket in sockets[:2]]
    assert isinstance(slots[0], ClientSlot)
    admission.mark_established(slots[0])
    for socket in sockets[2:]:
        assert isinstance(admission.accept("192.0.2.1", socket, 0.0), ClientSlot)
    assert [socket.aborted for socket in sockets] == [False, True, True, False, False]
    assert admission.rejected == {Limit.UNAUTHENTICATED: 2}
    assert admission.pending == 2
    assert not admission.is_pending(slots[0])


def test_an_evicted_connection_is_released_once() -> None:
    """An evicted connection counts as open until it is released, and is released once."""
    admission = Admission(Limits(unauthenticated=1))
    first = admit(admission)
    assert admission.is_pending(first)
    second = admit(admission)
    assert not admission.is_pending(first)
    assert admission.open == 2
    admission.release(first)
    assert (admission.open, admission.pending) == (1, 1)
    admission.release(second)
    assert (admission.open, admission.pending) == (0, 0)


def test_a_proxied_connection_counts_under_the_client_address() -> None:
    """A proxied connection is counted under the client's address instead of the proxy's once it is known."""
    admission = Admission(Limits(address_connections=1), lambda address: address == "10.0.0.1")
    proxied = [admit(admission, "10.0.0.1") for _ in range(3)]
    assert admission.admit_request(proxied[0], "192.0.2.1", 0.0) is None
    assert proxied[0].address == "192.0.2.1"
    assert admission.admit_request(proxied[1], "192.0.2.1", 0.0) is Limit.ADDRESS_CONNECTIONS
    assert proxied[1].address == "10.0.0.1"
    assert admission.admit_request(proxied[1], "192.0.2.2", 0.0) is None
    admission.release(proxied[0])
    assert admission.admit_request(proxied[2], "192.0.2.1", 0.0) is None
    assert admission.rejected == {Limit.ADDRESS_CONNECTIONS: 1}


def test_a_full_relay_accepts_requests_on_admitted_connections() -> None:
    """A request on an admitted connection is accepted when the relay is at its connection limit."""
    admission = Admission(Limits(connections=1, address_connections=1))
    client_slot = admit(admission)
    assert admission.admit_request(client_slot, "192.0.2.1", 0.0) is None


def test_requests_count_against_the_rate_of_their_address() -> None:
    """Each request on a connection costs as much of the address's rate as a new connection."""
    admission = Admission(Limits(address_rate=1.0))
    client_slot = admit(admission)
    decisions = [admission.admit_request(client_slot, "192.0.2.1", 0.0) for _ in range(int(BURST_SECONDS))]
    assert decisions == [None] * 9 + [Limit.ADDRESS_RATE]
    assert admission.admit_request(client_slot, "192.0.2.1", 1.0) is None


def test_sessions_per_subject_are_limited() -> None:
    """Sessions per subject are limited, by the grant if it sets a limit; those without a subject are not."""
    admission = Admission(Limits(subject_connections=1))
    slots = [admit(admission) for _ in range(6)]
    assert admission.bind(slots[0], "alice", None)
    assert admission.bind(slots[0], "alice", None), "binding the same subject again counts once"
    assert not admission.bind(slots[1], "alice", None)
    assert admission.bind(slots[1], "bob", None)
    assert admission.bind(slots[2], "alice", 2)
    assert not admission.bind(slots[3], "alice", 2)
    assert admission.bind(slots[4], "", None)
    assert admission.bind(slots[5], "", 1)
    assert admission.rejected == {Limit.SUBJECT_CONNECTIONS: 2}
    admission.release(slots[2])
    admission.release(slots[0])
    assert admission.bind(slots[3], "alice", None)


def test_a_renewed_token_may_have_another_subject() -> None:
    """A renewal under another subject moves the session's count, or fails if that subject is at its limit."""
    admission = Admission(Limits(subject_connections=1))
    one, other = admit(admission), admit(admission)
    assert admission.bind(one, "alice", None)
    assert admission.bind(other, "bob", None)
    assert not admission.bind(one, "bob", None)
    assert one.subject == "alice"
    assert admission.bind(one, "carol", None)
    assert admission.bind(other, "alice", None)
    assert admission.bind(other, "", None)
    assert admission.bind(one, "alice", None)


def test_without_a_limit_a_subject_has_any_number_of_sessions() -> None:
    """Without a limit, in the settings or in the grant, a subject may have any number of sessions."""
    admission = Admission(Limits())
    assert all(admission.bind(admit(admission), "alice", None) for _ in range(500))


def test_addresses_with_a_full_bucket_are_forgotten() -> None:
    """Addresses whose bucket is full again are forgotten, so memory does not grow with past clients."""
    counters = LocalLimitCounters()
    admission = Admission(Limits(address_rate=1.0), counters=counters)
    for number in range(100):
        admission.release(admit(admission, f"192.0.2.{number}"))
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


def test_remembered_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of remembered addresses is bounded, and the least recently used one is forgotten first."""
    monkeypatch.setattr("tickertape.relay.core.limit_counters.MAX_ADDRESSES", 3)
    assert MAX_ADDRESSES == 100_000
    counters = LocalLimitCounters()
    admission = Admission(Limits(address_rate=1.0), counters=counters)
    for number in (0, 1, 2, 0, 3, 4):
        admit(admission, f"192.0.2.{number}")
    assert counters.remembered == ["@192.0.2.0", "@192.0.2.3", "@192.0.2.4"]


def test_addresses_are_pruned_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning works in small batches, so many departed clients do not block the event loop."""
    monkeypatch.setattr("tickertape.relay.core.limit_counters.PRUNE_BATCH", 2)
    counters = LocalLimitCounters()
    admission = Admission(Limits(address_rate=1.0), counters=counters)
    for number in range(5):
        admit(admission, f"192.0.2.{number}")
    left = []
    for _ in range(3):
        admission.prune(100.0)
        left.append(len(counters.remembered))
    assert left == [3, 1, 0]
