"""Large snapshots: written in pieces as a socket accepts them, while other clients and events go on."""

from tickertape.contracts.messages import Heartbeat, Snapshot
from tickertape.relay.core.fanout.batch import MESSAGE_BYTES
from tickertape.relay.core.fanout.catch_up import TURN_PIECES
from tickertape.relay.core.session.session import Session
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import FakeLink, Stage, log_event, only, seqs, shown

COUNT = 600
"""Number of states, which take several pieces."""


def desk() -> Stage:
    """Return a hub with many large states."""
    stage = Stage()
    padded = log_event(message="x" * 1_000)  # the hub does not look into events
    for seq in range(1, COUNT + 1):
        stage.publish(seq, f"gateway.status.ctp.g{seq}", padded._replace(state=True))
    return stage


def fill(stage: Stage, link: FakeLink, session: Session) -> None:
    """Let the socket of a client be full after every write."""
    link.on_send = lambda: stage.hub.sessions.pause(session)


def test_a_socket_that_is_full_gets_one_piece() -> None:
    """A client that does not read is sent one piece and is then only a position, however often it asks."""
    stage = desk()
    link, session = stage.open()
    fill(stage, link, session)
    stage.settle()
    sent = len(link.sent)
    stage.settle()
    stage.tick(60.0)
    assert len(link.sent) == sent
    for _ in range(100):
        stage.send_message(session, type="subscribe")
        stage.settle()
    assert sum(map(len, link.sent)) < 4 * MESSAGE_BYTES + 100 * 500, "only the replies are added"
    assert session.reading is not None
    assert session.reading.index == 0


def test_a_slow_client_gets_everything_in_order() -> None:
    """A client that accepts one piece at a time gets the snapshot, then the events published meanwhile."""
    stage = desk()
    link, session = stage.open()
    fill(stage, link, session)
    seq = COUNT
    while session.reading is not None or stage.hub.fanout.behind:
        seq += 1
        stage.log(seq)
        stage.hub.sessions.resume(session)
        stage.settle()
        stage.hub.sessions.pause(session)
        assert seq < 2 * COUNT
        if session.reading is None:
            link.on_send = None
            stage.hub.sessions.resume(session)
            stage.settle()
    messages = link.read()
    assert shown(messages) == list(range(1, COUNT + 1))
    assert seqs(messages) == list(range(COUNT + 1, seq + 1))
    parts = only(messages, Snapshot)
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    kinds = [message.type for message in messages]
    assert kinds.index("events") > len(kinds) - 1 - kinds[::-1].index("snapshot")


def test_a_new_subscription_replaces_the_snapshot() -> None:
    """A snapshot that is still being sent is replaced by that of the next subscription."""
    stage = desk()
    link, session = stage.open()
    assert len(shown(link.read())) < COUNT
    stage.send_message(session, type="subscribe", subjects=["gateway.*.*.g7"])
    stage.settle()
    messages = link.read()
    assert [message.type for message in messages] == ["subscribed", "snapshot"]
    assert shown(messages) == [7]


def test_no_heartbeat_passes_an_incomplete_snapshot() -> None:
    """A client that left after a cursor without all states would miss the others."""
    stage = desk()
    link, session = stage.open()
    assert session.reading is not None
    stage.tick(60.0)
    assert only(link.read(), Heartbeat) == []
    stage.settle()
    stage.tick(60.0)
    assert len(only(link.read(), Heartbeat)) == 1


def test_a_turn_is_bounded() -> None:
    """A turn sends a bounded part of a snapshot, so that other clients do not wait."""
    stage = desk()
    for _ in range(10):
        stage.open()
    link, session = stage.open()
    link.read()
    stage.hub.fanout.catch_up(stage.now)
    assert 1 <= len(only(link.read(), Snapshot)) <= TURN_PIECES
    assert session.reading is not None


def test_clients_that_start_together_share_what_is_encoded() -> None:
    """The pieces of clients that start at the same place are the same objects."""
    stage = desk()
    links = [stage.open(Request(mode=mode))[0] for mode in ("live", "complete") for _ in range(2)]
    stage.settle()
    pieces = [[data for data in link.sent if b'"snapshot"' in data] for link in links]
    assert len(pieces[0]) > 5
    assert all(one is other for column in zip(*pieces, strict=True) for one, other in [column[:2]])
    assert len({id(column[0]) for column in zip(*pieces, strict=True)}) == len(pieces[0])
