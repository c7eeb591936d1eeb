"""Pieces of snapshots: what each shows, what readings share, and the bound on memory."""

import gc
from collections.abc import Iterator

import pytest
from tickertape.contracts.messages import Snapshot as SnapshotMessage
from tickertape.contracts.messages import relay_message
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.fanout.batch import MESSAGE_BYTES
from tickertape.relay.core.fanout.snapshot_pieces import Piece, SnapshotPieces
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import MAX_EXAMINED, MAX_STALE, MAX_STALE_BYTES, Reading, Snapshot
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import texts

ALL = Filter((">",))
EVENT = b'{"subject":"gateway.status.ctp.g","seq":%d,"event":{"event_type":"x","timestamp":"%b"}}'
HEAD = 10**9


def state(seq: int, gateway: int, size: int = 0, removed: bool = False) -> Record:
    """Build the state of a gateway, with a payload of a size."""
    route = Route(f"gateway.status.ctp.g{gateway}")
    return Record(seq, route, EVENT % (seq, b"x" * size), True, removed, 0.0, 0.0, 0)


def filled(count: int, size: int = 0) -> Snapshot:
    """Return a snapshot of a number of gateways."""
    snapshot = Snapshot()
    for seq in range(1, count + 1):
        snapshot.put(state(seq, seq, size))
    return snapshot


def shown(piece: Piece) -> list[int]:
    """Return the sequences in a piece."""
    if piece.data is None:
        return []
    assert isinstance(piece.data, bytes)
    (text,) = texts(piece.data)
    message = relay_message.validate_json(text)
    assert isinstance(message, SnapshotMessage)
    assert message.done == piece.done
    return [item.seq for item in message.events]


def rest(pieces: SnapshotPieces, reading: Reading, event_filter: Filter = ALL) -> list[Piece]:
    """Return all further pieces of a reading."""
    found = [pieces.take(reading, event_filter, PLAIN)]
    while not found[-1].done:
        found.append(pieces.take(reading, event_filter, PLAIN))
    return found


def test_an_empty_snapshot_is_one_piece() -> None:
    """An empty snapshot is sent, since a client must also learn that there is no state."""
    (piece,) = rest(SnapshotPieces(Snapshot()), Snapshot().read(HEAD))
    assert shown(piece) == []
    assert piece.data is not None


def test_a_large_snapshot_is_split_into_bounded_pieces() -> None:
    """All states are shown once and in order, in pieces of bounded size; a larger state is shown alone."""
    snapshot = filled(300, 1_000)
    snapshot.put(state(301, 301, 2 * MESSAGE_BYTES))
    snapshot.put(state(302, 302))
    found = rest(SnapshotPieces(snapshot), snapshot.read(HEAD))
    assert [seq for piece in found for seq in shown(piece)] == list(range(1, 303))
    assert [piece.done for piece in found] == [False] * (len(found) - 1) + [True]
    sizes = [len(piece.data) for piece in found if piece.data is not None]
    assert sorted(sizes)[-2] <= MESSAGE_BYTES + 100


def test_a_piece_examines_a_bounded_number_of_states() -> None:
    """A filter that matches few states gets empty pieces, which are not sent, until one matches."""
    snapshot = filled(3 * MAX_EXAMINED)
    found = rest(SnapshotPieces(snapshot), snapshot.read(HEAD), Filter(("gateway.*.*.g2500",)))
    assert [shown(piece) for piece in found] == [[], [], [2_500]]
    assert [piece.data is None for piece in found] == [True, True, False]


def test_a_replaced_state_is_shown_at_most_once() -> None:
    """A state that changes while a client reads is not shown: the new one comes as an event."""
    snapshot = filled(300, 1_000)
    pieces, reading = SnapshotPieces(snapshot), snapshot.read(300)
    first = shown(pieces.take(reading, ALL, PLAIN))
    snapshot.put(state(301, 1))
    snapshot.put(state(302, 299))
    snapshot.put(state(303, 300, removed=True))
    assert first + [seq for piece in rest(pieces, reading) for seq in shown(piece)] == list(range(1, 299))
    late = snapshot.read(303)
    assert [seq for piece in rest(pieces, late) for seq in shown(piece)] == [*range(2, 299), 301, 302]


def test_readings_from_one_place_share_their_pieces() -> None:
    """Clients that start at the same place share each piece; a change of another state keeps it shared."""
    snapshot = filled(300, 1_000)
    pieces = SnapshotPieces(snapshot)
    one = rest(pieces, snapshot.read(300))
    other = rest(pieces, snapshot.read(300))
    assert all(piece.data is again.data for piece, again in zip(one, other, strict=True))
    snapshot.put(state(301, 300))
    changed = rest(pieces, snapshot.read(301))
    assert all(piece.data is again.data for piece, again in zip(one[:-1], changed[:-1], strict=True))
    assert shown(changed[-1])[-2:] == [299, 301]
    assert pieces.take(snapshot.read(301), ALL, DEFLATED).data is not one[0].data


def test_a_piece_is_not_shared_with_a_reading_that_ends_elsewhere() -> None:
    """Whether a piece is the last depends on the position of its client."""
    snapshot = filled(10)
    pieces = SnapshotPieces(snapshot)
    for upto in (10, 4, 9, 4, 0, 10):
        (piece,) = rest(pieces, snapshot.read(upto))
        assert shown(piece) == list(range(1, upto + 1))


def test_the_memory_of_encoded_pieces_is_bounded() -> None:
    """However much is read, the encoded pieces stay within the bound, and reading continues beyond it."""
    snapshot = filled(2_000, 1_000)
    pieces = SnapshotPieces(snapshot, 300_000)
    for patterns in range(5):
        event_filter = Filter((">",) * (patterns + 1))
        found = rest(pieces, snapshot.read(HEAD), event_filter)
        assert [seq for piece in found for seq in shown(piece)] == list(range(1, 2_001))
        assert 0 < pieces.bytes <= 300_000
    pieces.clear()
    assert pieces.bytes == 0


@pytest.fixture(autouse=True)
def without_earlier_records() -> Iterator[None]:
    """Leave the records of other tests out of ``held``."""
    _EARLIER.clear()
    _EARLIER.update(id(record) for record in held())
    yield
    _EARLIER.clear()


_EARLIER: set[int] = set()


def held() -> list[Record]:
    """Return all records of this test in memory."""
    gc.collect()
    return [
        record for record in gc.get_objects() if isinstance(record, Record) and id(record) not in _EARLIER
    ]


def test_the_list_of_states_is_bounded() -> None:
    """States that change are replaced in the list, by number and by bytes."""
    snapshot = filled(10)
    reading = snapshot.read(10)
    for seq in range(11, 10 * MAX_STALE):
        snapshot.put(state(seq, seq % 10 + 1))
        snapshot.read(seq)
    assert len(held()) <= MAX_STALE + 12
    assert [seq for piece in rest(SnapshotPieces(snapshot), reading) for seq in shown(piece)] == []
    snapshot = Snapshot()
    for seq in range(1, 2 * MAX_STALE_BYTES // 100_000):
        snapshot.put(state(seq, 1, 100_000))
        snapshot.read(seq)
    assert sum(len(record.encoded) for record in held()) <= MAX_STALE_BYTES + 300_000


def test_slow_readings_hold_no_states() -> None:
    """Clients that start one after the other and hardly read hold no states that change meanwhile."""
    count, changes = 200, MAX_STALE + 1
    snapshot = filled(count, 1_000)
    pieces, readings, seq = SnapshotPieces(snapshot), [], count
    for _ in range(20):
        readings.append(snapshot.read(seq))
        assert shown(pieces.take(readings[-1], ALL, PLAIN))
        for _ in range(changes):
            seq += 1
            snapshot.put(state(seq, count - seq % 50, 1_000))
        pieces.clear()
    assert len(held()) <= count + 2 * changes
    for index, reading in enumerate(readings):
        before = reading.after
        upto = count + index * changes
        now = [seq for piece in rest(pieces, snapshot.read(upto)) for seq in shown(piece)]
        assert [seq for piece in rest(pieces, reading) for seq in shown(piece)] == [
            seq for seq in now if seq > before
        ], "it continues where it was"
