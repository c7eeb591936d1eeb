"""The window of unacknowledged events, with literal times."""

from tickertape.producers.sdk.ack_window import AckWindow, InFlightEvent
from tickertape.producers.sdk.publish_ack import TransientFailure


def entry(token: str, *, deadline: float = 30.0, send_at: float = 0.0) -> InFlightEvent[str]:
    return InFlightEvent(
        token, "log.info.a", b"{}", {"Nats-Msg-Id": token}, f"ticket {token}", deadline, send_at
    )


def tokens(events: list[InFlightEvent[str]]) -> list[str]:
    return [event.token for event in events]


def test_an_event_is_due_again_when_its_acknowledgement_is_late() -> None:
    """An event is due again after the acknowledgement timeout, and not before."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    event = entry("1")
    window.add(event)
    window.mark_sent(event, 0.0)
    assert window.due(1.9) == []
    assert tokens(window.due(2.0)) == ["1"]
    assert event.headers["Nats-Msg-Id"] == "1"


def test_an_event_is_acknowledged_once() -> None:
    """An acknowledged event leaves the window, and a second acknowledgement has no effect."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    window.add(entry("1"))
    assert window.remove("1") is not None
    assert window.remove("1") is None
    assert window.get("1") is None
    assert len(window) == 0


def test_transient_failures_back_off_up_to_a_limit() -> None:
    """The wait after 'no responders' starts at a quarter of a second and doubles up to two seconds."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    event = entry("1")
    window.add(event)
    waits = []
    for _ in range(6):
        window.retry_later(event, TransientFailure("no stream captures this subject"), 100.0)
        waits.append(event.send_at - 100.0)
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_a_new_connection_makes_everything_due_in_order() -> None:
    """A reconnection makes all events due, oldest first, because the old connection may have lost them."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    for token in ("1", "2", "3"):
        event = entry(token)
        window.add(event)
        window.mark_sent(event, 0.0)
    window.resend_all(0.5)
    assert tokens(window.due(0.5)) == ["1", "2", "3"]


def test_an_event_leaves_at_its_deadline() -> None:
    """An event leaves the window at its deadline."""
    window: AckWindow[str] = AckWindow(ack_timeout=2.0)
    window.add(entry("1", deadline=5.0))
    window.add(entry("2", deadline=6.0))
    assert window.expire(4.9) == []
    assert tokens(window.expire(5.0)) == ["1"]
    assert [event.token for event in window.events()] == ["2"]
    assert repr(window) == "<AckWindow 1 in flight>"
