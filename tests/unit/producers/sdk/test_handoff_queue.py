"""The queue between the threads of a program and the publishing thread."""

from concurrent.futures import Future

import pytest
from tickertape.producers.sdk.errors import PublishDropped, PublishError
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue
from tickertape.producers.sdk.publish_ack import Ack


def make_handoff(text: str, future: Future[Ack] | None = None) -> Handoff:
    return Handoff("log.info.a", text.encode(), None, None, future)


def take_all(queue: HandoffQueue) -> list[str]:
    found = []
    while (handoff := queue.take()) is not None:
        found.append(handoff.payload.decode())
    return found


@pytest.mark.parametrize(("capacity", "size"), [(3, 1000), (100, 6)])
def test_the_oldest_events_are_dropped(capacity: int, size: int) -> None:
    """The oldest events are dropped when the queue exceeds its number of events or its size in bytes, and
    their futures fail with PublishDropped.
    """
    queue = HandoffQueue(capacity, size)
    futures: list[Future[Ack]] = [Future() for _ in range(10)]
    for number, future in enumerate(futures):
        queue.put(make_handoff(f"n{number}", future))
    assert (len(queue), queue.dropped) == (3, 7)
    assert all(isinstance(future.exception(0), PublishDropped) for future in futures[:7])
    assert take_all(queue) == ["n7", "n8", "n9"]
    for number in range(3):
        queue.put(make_handoff(f"m{number}"))
    assert queue.dropped == 7
    assert take_all(queue) == ["m0", "m1", "m2"]


def test_a_large_event_replaces_all_others() -> None:
    """An event larger than the queue replaces all other events and is not dropped."""
    queue = HandoffQueue(10, 5)
    queue.put(make_handoff("one"))
    queue.put(make_handoff("larger than all"))
    assert take_all(queue) == ["larger than all"]


def test_without_a_capacity_nothing_is_dropped() -> None:
    """A queue without a capacity drops nothing, because its caller limits it."""
    queue = HandoffQueue(None, 1)
    for _ in range(5):
        queue.put(make_handoff("xx"))
    assert (len(queue), queue.dropped) == (5, 0)


def test_cancelled_events_are_not_taken() -> None:
    """Cancelled events are neither returned nor counted as dropped."""
    queue = HandoffQueue(1)
    first: Future[Ack] = Future()
    second: Future[Ack] = Future()
    queue.put(make_handoff("first", first))
    first.cancel()
    queue.put(make_handoff("second", second))
    second.cancel()
    assert (take_all(queue), queue.dropped) == ([], 0)


def test_abandoning_the_queue_fails_all_futures() -> None:
    """Abandoning the queue fails the futures of all its events."""
    queue = HandoffQueue(5)
    future: Future[Ack] = Future()
    queue.put(make_handoff("one", future))
    queue.put(make_handoff("two"))
    assert queue.abandon() == 2
    assert isinstance(future.exception(0), PublishError)
