"""The queue between a program's threads and the one that publishes."""

from concurrent.futures import Future

import pytest
from tickertape.producers.sdk.errors import PublishDropped, PublishError
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue
from tickertape.producers.sdk.publish_ack import Ack


def parcel(text: str, future: Future[Ack] | None = None) -> Handoff:
    return Handoff("log.info.a", text.encode(), None, None, future)


def taken(parcels: HandoffQueue) -> list[str]:
    found = []
    while (one := parcels.take()) is not None:
        found.append(one.payload.decode())
    return found


@pytest.mark.parametrize(("capacity", "size"), [(3, 1000), (100, 6)])
def test_the_oldest_are_dropped(capacity: int, size: int) -> None:
    """For want of places or of bytes; their futures say so."""
    parcels = HandoffQueue(capacity, size)
    futures: list[Future[Ack]] = [Future() for _ in range(10)]
    for number, future in enumerate(futures):
        parcels.put(parcel(f"n{number}", future))
    assert (len(parcels), parcels.dropped) == (3, 7)
    assert all(isinstance(future.exception(0), PublishDropped) for future in futures[:7])
    assert taken(parcels) == ["n7", "n8", "n9"]
    for number in range(3):
        parcels.put(parcel(f"m{number}"))
    assert parcels.dropped == 7
    assert taken(parcels) == ["m0", "m1", "m2"]


def test_a_large_parcel_is_alone() -> None:
    """It makes everyone else leave, and stays."""
    parcels = HandoffQueue(10, 5)
    parcels.put(parcel("one"))
    parcels.put(parcel("larger than all"))
    assert taken(parcels) == ["larger than all"]


def test_without_a_capacity_nothing_is_dropped() -> None:
    """The caller counts for himself then."""
    parcels = HandoffQueue(None, 1)
    for _ in range(5):
        parcels.put(parcel("xx"))
    assert (len(parcels), parcels.dropped) == (5, 0)


def test_what_was_cancelled_is_not_taken() -> None:
    """Nor counted as dropped."""
    parcels = HandoffQueue(1)
    first: Future[Ack] = Future()
    second: Future[Ack] = Future()
    parcels.put(parcel("first", first))
    first.cancel()
    parcels.put(parcel("second", second))
    second.cancel()
    assert (taken(parcels), parcels.dropped) == ([], 0)


def test_an_abandoned_queue_fails_everyone() -> None:
    """Nobody is left waiting."""
    parcels = HandoffQueue(5)
    future: Future[Ack] = Future()
    parcels.put(parcel("one", future))
    parcels.put(parcel("two"))
    assert parcels.abandon() == 2
    assert isinstance(future.exception(0), PublishError)
