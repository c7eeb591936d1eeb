"""An exception raised on behalf of one session ends only that session, wherever it is raised."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Events, Heartbeat
from tickertape.relay.core.fanout import catch_up as catch_up_module
from tickertape.relay.core.fanout.batch import Batch
from tickertape.relay.core.fanout.feed import Feed
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON
from tickertape.relay.core.session.session import Session, State
from tickertape.relay.core.session.session_start import SessionStart
from tickertape.relay.core.session.subscription import Request, Since

from tests.support.clients.fake_link import NOW, FakeLink, Stage, only, seqs

LEVEL: Final = "ERROR"
"""Level that only the victim requests, so that its feed is its own."""


class InjectedError(Exception):
    """Exception that the tests inject."""


class Scene:
    """Hub with a victim session and a neighbour."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **stage: Any) -> None:
        self.patch = monkeypatch
        self.reported: list[tuple[str, Exception]] = []
        self.stage = Stage(report=lambda *one: self.reported.append(one), **stage)
        self.neighbour, self.neighbour_session = self.stage.follow()
        self.link = FakeLink()
        self.victim: Session

    def enter(self, request: Request | None = None, grant: Grant | None = None) -> None:
        """Open the victim's session."""
        requested = request or Request(level=LEVEL)
        self.victim = self.stage.hub.sessions.open(self.link, requested, self.stage.now, grant or Grant())

    def break_writes(self) -> None:
        """Make each write to the victim raise."""

        def broken() -> None:
            raise InjectedError

        self.link.on_send = broken

    def break_for_victim(self, owner: Any, name: str) -> None:
        """Make a function raise when one of its arguments is the victim or its feed."""
        real = getattr(owner, name)

        def broken(*arguments: Any, **named: Any) -> Any:
            for one in arguments:
                if (isinstance(one, Session) and one.link == self.link) or (
                    isinstance(one, Feed) and one.filter.level == LEVEL
                ):
                    raise InjectedError
            return real(*arguments, **named)

        self.patch.setattr(owner, name, broken)

    def check(self) -> None:
        """Check that the victim ended with one report and that its neighbour is still served."""
        assert [(session, type(error)) for session, error in self.reported] == [
            (self.victim.id, InjectedError)
        ]
        assert self.victim.state is State.CLOSING
        assert self.link.aborted or self.link.closed == (CloseCode.INTERNAL_ERROR, INTERNAL_ERROR_REASON)
        hub = self.stage.hub
        assert hub.stats.errors == {"session": 1, "request": 0}
        assert list(hub.sessions) == [self.neighbour_session]
        assert [feed.members for feed in hub.fanout.feeds.values()] == [1]
        assert repr(hub.fanout.replay_cache).endswith("0 waiting)")
        self.stage.settle()
        self.neighbour.read()
        seq = hub.log.head + 1
        self.stage.log(seq, "error")
        self.stage.settle()
        self.stage.tick(60.0)
        messages = self.neighbour.read()
        assert seqs(messages) == [seq]
        assert only(messages, Heartbeat)[-1].cursor == f"e-{seq}"


def write_of_a_batch(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.log(1, "error")
    scene.stage.settle()


def making_of_a_batch(scene: Scene) -> None:
    scene.enter()
    scene.break_for_victim(Feed, "take_batch")
    scene.stage.log(1, "error")
    scene.stage.settle()


def encoding_of_a_batch(scene: Scene) -> None:
    scene.enter()
    real = Batch.encoded

    def broken(batch: Any, encoding: Any) -> Any:
        if any(record.seq == 1 for record in batch.records):
            raise InjectedError
        return real(batch, encoding)

    scene.patch.setattr(Batch, "encoded", broken)
    # A neighbour with a narrower filter has its own feed and gets a batch that can be encoded.
    scene.stage.send_message(scene.neighbour_session, type="subscribe", subjects=["log.*.y"])
    scene.stage.log(1, "error")
    scene.stage.settle()
    scene.stage.send_message(scene.neighbour_session, type="subscribe")


def missing_range(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.hub.fanout.publish_missing(5, scene.stage.now)


def missing_range_with_events_pending(scene: Scene) -> None:
    scene.enter()
    scene.stage.log(1, "error")
    scene.break_for_victim(Feed, "take_batch")
    scene.stage.hub.fanout.publish_missing(5, scene.stage.now)


def heartbeat(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.tick(60.0)


def heartbeat_behind(scene: Scene) -> None:
    for seq in (1, 2, 3):
        scene.stage.log(seq, "error")
    scene.enter(Request(level=LEVEL, cursor=Cursor("e", 1)))
    scene.break_writes()
    scene.stage.tick(60.0)


def heartbeat_without_a_position(scene: Scene) -> None:
    scene.enter(Request(level=LEVEL, since=Since()))
    scene.break_writes()
    scene.stage.tick(60.0)


def catching_up(scene: Scene) -> None:
    for seq in (1, 2, 3):
        scene.stage.log(seq, "error")
    scene.enter(Request(level=LEVEL, cursor=Cursor("e", 1)))
    scene.break_for_victim(catch_up_module, "next_batch")
    scene.stage.settle()


def write_while_catching_up(scene: Scene) -> None:
    for seq in (1, 2, 3):
        scene.stage.log(seq, "error")
    scene.enter(Request(level=LEVEL, cursor=Cursor("e", 1)))
    scene.break_writes()
    scene.stage.settle()


def end_of_a_token(scene: Scene) -> None:
    scene.enter(grant=Grant(expires_at=NOW + 100))
    scene.break_writes()
    scene.stage.tick(90.0)


def revoked_tokens(scene: Scene) -> None:
    scene.enter(grant=Grant(token_id="victim"))

    def revoked(grant: Grant) -> bool:
        if grant.token_id == "victim":
            raise InjectedError
        return False

    scene.stage.hub.sessions.end_revoked(revoked)


def welcome(scene: Scene) -> None:
    scene.break_writes()
    scene.enter()


def start(scene: Scene) -> None:
    scene.break_for_victim(SessionStart, "begin")
    scene.enter()


def attachment(scene: Scene) -> None:
    scene.break_for_victim(scene.stage.hub.fanout, "attach")
    scene.enter()


def message(scene: Scene) -> None:
    scene.enter()
    scene.break_for_victim(SessionStart, "start")
    scene.stage.send_message(scene.victim, type="subscribe", level=LEVEL)


def answer_to_a_message(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.send_message(scene.victim, type="ping", id=1)


def rejection(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.send_message(scene.victim, type="nonsense")


def pause(scene: Scene) -> None:
    scene.enter()
    scene.patch.setattr(scene.stage.hub.fanout, "pause", once(scene.stage.hub.fanout.pause))
    scene.stage.hub.sessions.pause(scene.victim)


def resume(scene: Scene) -> None:
    scene.enter()
    scene.stage.hub.sessions.pause(scene.victim)
    scene.break_for_victim(scene.stage.hub.fanout, "resume")
    scene.stage.hub.sessions.resume(scene.victim)


def disconnection(scene: Scene) -> None:
    scene.enter()
    scene.patch.setattr(scene.stage.hub.fanout, "detach", once(scene.stage.hub.fanout.detach))
    scene.stage.hub.sessions.remove(scene.victim)


def closing(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.hub.sessions.close(scene.victim, CloseCode.GOING_AWAY, "the relay shuts down")


def end_of_the_link(scene: Scene) -> None:
    scene.enter()

    def broken(code: int, reason: str) -> None:
        raise InjectedError

    scene.patch.setattr(scene.link, "close", broken)
    scene.stage.hub.sessions.close(scene.victim, CloseCode.GOING_AWAY, "the relay shuts down")


def upstream(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.hub.sessions.set_upstream(False, scene.stage.now + 1)


def another_stream(scene: Scene) -> None:
    scene.enter()
    scene.break_writes()
    scene.stage.hub.begin("e", 0)


def states_of_another_stream(scene: Scene) -> None:
    scene.enter()
    scene.stage.hub.begin("e", 0)
    scene.break_writes()
    scene.stage.hub.restart_sessions()


def answer_of_the_stream(scene: Scene) -> None:
    scene.enter(Request(level=LEVEL, since=Since()))
    assert scene.victim.locating is not None
    scene.break_for_victim(SessionStart, "begin")
    scene.stage.hub.sessions.start_located(scene.victim, scene.victim.locating, 0, scene.stage.now)


def failed_chunk(scene: Scene) -> None:
    for seq in range(1, CHUNK_SEQUENCES + 10):
        scene.stage.log(seq, "info", "z")
    scene.enter(Request(level=LEVEL, mode="complete", cursor=Cursor("e", 1)))
    scene.stage.settle()
    replay_cache = scene.stage.hub.fanout.replay_cache
    expected = replay_cache.next_request()
    assert expected is not None
    for session in replay_cache.abandon(expected.number):
        session.fail(InjectedError())


def once(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises on its first call and then calls the real one."""
    left = [True]

    def broken(*arguments: Any) -> Any:
        if left.pop() if left else False:
            raise InjectedError
        return real(*arguments)

    return broken


FAULTS: Final = (
    write_of_a_batch, making_of_a_batch, encoding_of_a_batch, missing_range,
    missing_range_with_events_pending, heartbeat, heartbeat_behind, heartbeat_without_a_position,
    catching_up, write_while_catching_up, end_of_a_token,
    revoked_tokens, welcome, start, attachment, message, answer_to_a_message, rejection, pause, resume,
    disconnection, closing, end_of_the_link, upstream, another_stream, states_of_another_stream,
    answer_of_the_stream, failed_chunk,
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_an_exception_ends_one_session_and_its_neighbour_is_served(
    fault: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception at any point ends its session with one report and leaves the neighbour unaffected."""
    scene = Scene(monkeypatch, stream=True, log_events=100)
    fault(scene)
    scene.check()


def test_members_of_one_feed_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write ends its own session, not those that share its feed and encoded bytes."""
    scene = Scene(monkeypatch)
    scene.enter(Request())
    scene.break_writes()
    scene.stage.log(1)
    scene.stage.settle()
    assert [seqs([one]) for one in only(scene.neighbour.read(), Events)] == [[1]]
    scene.check()


def test_without_a_report_callback_errors_are_raised() -> None:
    """A hub without an error report callback raises exceptions instead of hiding them."""
    stage = Stage()
    link, _ = stage.follow()

    def broken() -> None:
        raise InjectedError

    link.on_send = broken
    with pytest.raises(InjectedError):
        stage.tick(60.0)
