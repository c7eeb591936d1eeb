"""The window of unacknowledged events, with literal times."""

from tickertape.producers.sdk.ack_window import AckWindow, InFlightEvent
from tickertape.producers.sdk.publish_ack import TransientFailure


def entry(token: str, *, deadline: float = 30.0, send_at: float = 0.0) -> InFlightEvent[str]:
    return InFlightEvent(
        token, "log.info.a", b"{}", {"Nats-Msg-Id": token}, f"ticket {token}", deadline, send_at
    )


def tokens(events: list[InFlightEvent[str]]) -> list[str]:
    return [one.token for one in events]


def test_an_event_is_due_again_when_its_acknowledgement_is_late() -> None:
    """After the timeout, and not before, an event is due."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    one = entry("1")
    window.add(one)
    window.mark_sent(one, 0.0)
    assert window.due(1.9) == []
    assert tokens(window.due(2.0)) == ["1"]
    assert one.headers["Nats-Msg-Id"] == "1"


def test_an_acknowledged_event_leaves_once() -> None:
    """A second acknowledgement finds nothing."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    window.add(entry("1"))
    assert window.remove("1") is not None
    assert window.remove("1") is None
    assert window.get("1") is None
    assert len(window) == 0


def test_refusals_wait_longer_each_time_and_never_longer_than_the_bound() -> None:
    """No responders: a quarter of a second, then twice that, up to two seconds."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    one = entry("1")
    window.add(one)
    waits = []
    for _ in range(6):
        window.retry_later(one, TransientFailure("no stream takes this subject"), 100.0)
        waits.append(one.send_at - 100.0)
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_a_new_connection_makes_everything_due_in_order() -> None:
    """What the old connection may have lost is sent again, oldest first."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    for token in ("1", "2", "3"):
        one = entry(token)
        window.add(one)
        window.mark_sent(one, 0.0)
    window.resend_all(0.5)
    assert tokens(window.due(0.5)) == ["1", "2", "3"]


def test_an_event_leaves_at_its_deadline() -> None:
    """Whatever happened to it, an event is given up at its deadline."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    window.add(entry("1", deadline=5.0))
    window.add(entry("2", deadline=6.0))
    assert window.expire(4.9) == []
    assert tokens(window.expire(5.0)) == ["1"]
    assert [one.token for one in window.events()] == ["2"]
    assert repr(window) == "<AckWindow 1 in flight>"
