"""The pool of connections without a session."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.core.pending_connections import PendingConnections


@dataclass(eq=False)
class Connection:
    """Connection of an address."""

    address: str


def test_one_client_makes_way_for_all_others() -> None:
    """A client that fills the pool displaces itself, oldest first, and no client that came before it."""
    pool = PendingConnections[Connection]()
    early = Connection("early")
    flood = [Connection("flood") for _ in range(5)]
    for connection in (early, *flood):
        pool.add(connection)
    for expected in flood[:4]:
        assert pool.largest() is expected
        pool.discard(expected)
    assert pool.largest() is early, "one each: the oldest of all"
    assert repr(pool) == "PendingConnections(2 of 2 addresses)"


def test_a_connection_moves_to_its_client() -> None:
    """A connection that turns out to be another client's counts as that client's, and keeps its place."""
    pool = PendingConnections[Connection]()
    proxied = [Connection("proxy") for _ in range(3)]
    for connection in proxied:
        pool.add(connection)
    outside = Connection("proxy")
    for connection in (proxied[1], proxied[2], outside):
        pool.move(connection, "client")
    assert outside not in pool
    assert pool.largest() is proxied[1]
    assert [connection.address for connection in (*proxied, outside)] == ["proxy", *["client"] * 3]


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "move"]), st.integers(0, 9), st.sampled_from("abc"))
)


@given(STEPS)
def test_the_largest_address_is_the_largest(steps: list[tuple[str, int, str]]) -> None:
    """Whatever happened before, the pool names a connection of an address that has most."""
    pool = PendingConnections[Connection]()
    connections = [Connection("abc"[number % 3]) for number in range(10)]
    inside: list[Connection] = []
    for step, number, address in steps:
        connection = connections[number]
        if step == "move":
            pool.move(connection, address)
        elif step == "discard":
            pool.discard(connection)
            inside = [other for other in inside if other is not connection]
        elif connection not in inside:
            pool.add(connection)
            inside.append(connection)
        assert len(pool) == len(inside)
        if inside:
            sizes = [sum(one.address == other.address for other in inside) for one in inside]
            assert pool.largest() is next(
                one
                for one, size in zip(inside, sizes, strict=True)
                if one.address == pool.largest().address and size == max(sizes)
            )
