"""Bounded pools of states: compared with a model, and flooded."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import FAMILIES, Snapshot
from tickertape.relay.core.state_pool import MAX_MISSING, SHARES, Bounds, StatePool

from tests.support.clients.feed_bench import states_of

ALL = Filter((">",))
BOUNDS = Bounds(16, 640)
SMALL = {"gateway.status": BOUNDS, "system.health": BOUNDS}


def state(seq: int, subject: str, *, removed: bool = False, size: int = 10) -> Record:
    """Build a state record of a given size."""
    return Record(seq, Route(subject), b"x" * size, True, removed, 0.0, 0.0, 0)


def subjects(pool: StatePool) -> list[str]:
    """Return the last tokens of the subjects in a pool, least recently changed first."""
    records = sorted(pool.records.values(), key=lambda record: record.seq)
    return [record.route.subject.rpartition(".")[2] for record in records]


class Model:
    """Pool in plain lists, in which each rule is written as the invariants describe it."""

    def __init__(self) -> None:
        self.live: list[Record] = []
        self.tombstones: list[Record] = []
        self.missing: set[str] = set()
        self.evicted = 0

    def put(self, record: Record) -> None:
        """Add a record, and evict until the bounds hold."""
        subject = record.route.subject
        self.live = [other for other in self.live if other.route.subject != subject]
        self.tombstones = [other for other in self.tombstones if other.route.subject != subject]
        self.missing.discard(subject)
        (self.tombstones if record.removed else self.live).append(record)
        while len(self.live + self.tombstones) > BOUNDS.max_states or self.size > BOUNDS.max_bytes:
            self._evict(record)

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return sum(len(record.encoded) for record in self.live + self.tombstones)

    def _evict(self, newcomer: Record) -> None:
        if self.tombstones:
            del self.tombstones[0]
            return
        groups = defaultdict(list)
        for record in self.live:
            groups[record.route.group].append(record)

        def use(group: list[Record]) -> float:
            size = sum(len(record.encoded) for record in group)
            return max(len(group) / BOUNDS.max_states, size / BOUNDS.max_bytes)

        over = [group for group in groups.values() if use(group) > 1 / SHARES]
        own = groups[newcomer.route.group]
        candidates = self.live
        if over:
            candidates = own if own in over else max(over, key=lambda all: (use(all), all[0].route.group))
        victim = min(candidates, key=lambda record: (record.seq, record.route.subject))
        self.live.remove(victim)
        self.missing.add(victim.route.subject)
        self.evicted += 1


PUTS = st.lists(
    st.tuples(
        st.sampled_from("aaabcdefghijk"),
        st.integers(0, 9),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([10, 20, 150]),
        st.sampled_from([0, 0, 0, 30]),
    ),
    max_size=90,
)


@given(PUTS)
def test_a_pool_behaves_like_its_model(puts: list[tuple[str, int, bool, int, int]]) -> None:
    """The pool holds, orders, evicts and counts what a model does, also if states arrive late."""
    pool, model = StatePool(BOUNDS), Model()
    for position, (group, instance, removed, size, late) in enumerate(puts):
        record = state(100 + position - late, f"x.y.{group}.{instance}", removed=removed, size=size)
        known = pool.get(record.route.subject)
        if known is not None and known.seq > record.seq:
            continue
        pool.put(record)
        model.put(record)
        assert set(pool.records.values()) == set(model.live)
        assert list(pool.tombstones.values()) == model.tombstones
        assert (pool.evicted, pool.missing) == (model.evicted, len(model.missing))
        assert pool.bytes == model.size <= BOUNDS.max_bytes
        assert len(pool.records) + len(pool.tombstones) <= BOUNDS.max_states


@given(PUTS)
def test_a_family_never_evicts_another(puts: list[tuple[str, int, bool, int, int]]) -> None:
    """Whatever arrives in one family, each state of the other stays."""
    for flooded, other in (("system.health", "gateway.status"), ("gateway.status", "system.health")):
        snapshot = Snapshot(SMALL)
        for seq in range(1, 17):
            snapshot.put(state(seq, f"{other}.t.{seq}"))
        for seq, (group, instance, removed, size, _) in enumerate(puts, 20):
            snapshot.put(state(seq, f"{flooded}.{group}.{instance}", removed=removed, size=size))
        shown = [record.seq for record in states_of(snapshot, Filter((f"{other}.>",)), 1_000)]
        assert shown == list(range(1, 17))
        assert snapshot.missing(Filter((f"{other}.>",))) == {}


def test_a_flood_of_components_leaves_the_gateways() -> None:
    """100 000 components evict no gateway, and the evicted ones are counted."""
    snapshot = Snapshot()
    gateways = [state(seq, f"gateway.status.ctp.g{seq}") for seq in range(1, 4)]
    for record in gateways:
        snapshot.put(record)
    for seq in range(100, 100_100):
        snapshot.put(state(seq, f"system.health.x{seq}"))
    assert states_of(snapshot, Filter(("gateway.>",)), 200_000) == gateways
    lost = 100_000 - FAMILIES["system.health"].max_states
    assert snapshot.missing(ALL) == {"system.health": lost}
    assert snapshot.missing(Filter(("gateway.>", "log.>"))) == {}
    assert snapshot.missing(Filter(("*.*.x1",))) == {"system.health": lost}


@pytest.mark.parametrize("subject", ["x.y.{}", "x.y.t.{}"], ids=["of the family", "of the group"])
def test_the_least_recently_changed_goes_first(subject: str) -> None:
    """A subject that changes again is evicted after those that did not."""
    pool = StatePool(BOUNDS)
    names = [str(number) for number in range(16)]
    for seq, name in enumerate([*names, "0", "new"], 1):
        pool.put(state(seq, subject.format(name)))
    assert subjects(pool) == [*names[2:], "0", "new"]
    assert pool.missing == 1
    pool.put(state(99, subject.format("1")))
    assert subjects(pool) == [*names[3:], "0", "new", "1"]
    assert (pool.missing, pool.evicted) == (1, 2), "a state that returns is no longer missing"


def test_a_full_group_evicts_its_own() -> None:
    """A group beyond its share, in number or in bytes, evicts from itself, so all others stay."""
    for size in (10, 400):
        pool = StatePool(Bounds(80, 8_000))
        for seq in range(1, 70):
            pool.put(state(seq, f"x.y.ctp{seq % 7}.{seq}"))
        for seq in range(100, 1_000):
            pool.put(state(seq, f"x.y.noisy.{seq}", size=size))
        assert sum(".noisy." not in subject for subject in pool.records) == 69
        assert [seq for seq in subjects(pool) if int(seq) >= 100][-1] == "999"


def test_a_small_group_evicts_from_the_largest() -> None:
    """A pool that one group fills has room for each group that is within its share."""
    pool = StatePool(Bounds(80, 8_000))
    for seq in range(1, 200):
        pool.put(state(seq, f"x.y.noisy.{seq}"))
    for seq in range(200, 209):
        pool.put(state(seq, f"x.y.ctp.{seq}"))
    for seq in range(300, 400):
        pool.put(state(seq, f"x.y.noisy.{seq}"))
    assert sum(".ctp." in subject for subject in pool.records) == 9
    assert len(pool.records) == 80


def test_tombstones_never_evict_a_state() -> None:
    """Removed gateways, before and after the live ones, are forgotten first."""
    pool = StatePool(BOUNDS)
    for seq in range(1, 100):
        pool.put(state(seq, f"x.y.t.{seq}", removed=True))
    for seq in range(100, 116):
        pool.put(state(seq, f"x.y.t.{seq}"))
    for seq in range(200, 300):
        pool.put(state(seq, f"x.y.t.{seq}", removed=True))
    assert subjects(pool) == [str(seq) for seq in range(100, 116)]
    assert (pool.tombstones, pool.evicted, pool.missing) == ({}, 0, 0)


def test_a_late_state_evicts_none_that_is_newer() -> None:
    """A state that is loaded after newer ones filled the pool is the one that is evicted."""
    pool = StatePool(Bounds(3, 1_000))
    for seq, name in enumerate("abc", 10):
        pool.put(state(seq, f"x.y.{name}"))
    pool.put(state(1, "x.y.old"))
    assert subjects(pool) == ["a", "b", "c"]
    assert (pool.evicted, pool.missing) == (1, 1)


def test_what_is_remembered_of_the_evicted_is_bounded() -> None:
    """The count of missing states stops at its limit; the count of evictions does not."""
    pool = StatePool(Bounds(1, 1_000))
    for seq in range(MAX_MISSING + 10):
        pool.put(state(seq, f"x.y.{seq}"))
    assert (pool.missing, pool.evicted) == (MAX_MISSING, MAX_MISSING + 9)
    pool.clear()
    assert (pool.missing, pool.evicted, pool.bytes) == (0, MAX_MISSING + 9, 0)
