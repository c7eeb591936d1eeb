"""Batches of events that a feed hands to its members."""

from tickertape.relay.core.fanout.batch import Gap as FeedGap
from tickertape.relay.core.fanout.batch import lost_batch
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import gaps, texts
from tests.support.clients.feed_bench import Bench, read


def test_a_lost_batch_reports_its_range() -> None:
    """A lost batch reports its range as a gap with an unknown count and carries no events."""
    batch = lost_batch("e", 3, 9, "reset")
    assert gaps(read(batch)) == [("e-3", "e-9", None, "reset")]
    assert (batch.reached, batch.records, batch.gap) == (9, (), FeedGap(3, 9, "reset"))


def test_a_batch_is_encoded_once_for_each_encoding() -> None:
    """A batch is encoded once per encoding, and all encodings carry the same messages."""
    bench = Bench(rate=10.0)
    for seq in range(1, 30):
        bench.publish(seq, size=50)
    batch = bench.take()
    assert batch is not None
    assert repr(batch).startswith("Batch(7 records to 29, Gap(start=0, end=29, reason='rate'")
    plain, deflated = batch.encoded(PLAIN), batch.encoded(DEFLATED)
    assert batch.encoded(PLAIN) is plain
    assert batch.encoded(DEFLATED) is deflated
    assert plain != deflated
    assert texts(deflated, DEFLATED) == texts(plain)
