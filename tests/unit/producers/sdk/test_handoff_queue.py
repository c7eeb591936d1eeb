"""The queue between a program's threads and the one that publishes."""

from concurrent.futures import Future

import pytest
from tickertape.producers.sdk.errors import PublishDropped, PublishError
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue
from tickertape.producers.sdk.publish_ack import Ack


def handoff(text: str, future: Future[Ack] | None = None) -> Handoff:
    return Handoff("log.info.a", text.encode(), None, None, future)


def taken(queue: HandoffQueue) -> list[str]:
    found = []
    while (one := queue.take()) is not None:
        found.append(one.payload.decode())
    return found


@pytest.mark.parametrize(("capacity", "size"), [(3, 1000), (100, 6)])
def test_the_oldest_are_dropped(capacity: int, size: int) -> None:
    """For want of places or of bytes; their futures say so."""
    queue = HandoffQueue(capacity, size)
    futures: list[Future[Ack]] = [Future() for _ in range(10)]
    for number, future in enumerate(futures):
        queue.put(handoff(f"n{number}", future))
    assert (len(queue), queue.dropped) == (3, 7)
    assert all(isinstance(future.exception(0), PublishDropped) for future in futures[:7])
    assert taken(queue) == ["n7", "n8", "n9"]
    for number in range(3):
        queue.put(handoff(f"m{number}"))
    assert queue.dropped == 7
    assert taken(queue) == ["m0", "m1", "m2"]


def test_a_large_parcel_is_alone() -> None:
    """It makes everyone else leave, and stays."""
    queue = HandoffQueue(10, 5)
    queue.put(handoff("one"))
    queue.put(handoff("larger than all"))
    assert taken(queue) == ["larger than all"]


def test_without_a_capacity_nothing_is_dropped() -> None:
    """The caller counts for himself then."""
    queue = HandoffQueue(None, 1)
    for _ in range(5):
        queue.put(handoff("xx"))
    assert (len(queue), queue.dropped) == (5, 0)


def test_what_was_cancelled_is_not_taken() -> None:
    """Nor counted as dropped."""
    queue = HandoffQueue(1)
    first: Future[Ack] = Future()
    second: Future[Ack] = Future()
    queue.put(handoff("first", first))
    first.cancel()
    queue.put(handoff("second", second))
    second.cancel()
    assert (taken(queue), queue.dropped) == ([], 0)


def test_an_abandoned_queue_fails_everyone() -> None:
    """Nobody is left waiting."""
    queue = HandoffQueue(5)
    future: Future[Ack] = Future()
    queue.put(handoff("one", future))
    queue.put(handoff("two"))
    assert queue.abandon() == 2
    assert isinstance(future.exception(0), PublishError)
