"""Bytes of incomplete messages of all clients."""

from functools import partial

from tickertape.relay.transport.message_rate import IncompleteMessages


def test_the_client_with_most_incomplete_bytes_is_ended() -> None:
    """Beyond the limit, the client with the largest message is ended, and its bytes no longer count."""
    ended: list[str] = []
    small, large, other = (partial(ended.append, name) for name in ("small", "large", "other"))
    incomplete = IncompleteMessages(100)
    incomplete.record(small, 10)
    incomplete.record(large, 60)
    incomplete.record(other, 30)
    assert ended == []
    incomplete.record(small, 20)
    assert ended == ["large"]
    assert incomplete.bytes == 50
    incomplete.record(other, 0)
    incomplete.record(other, 0)
    assert incomplete.bytes == 20
    incomplete.record(small, 200)
    assert ended == ["large", "small"]
    assert repr(incomplete) == "IncompleteMessages(0 bytes of 0 clients)"
