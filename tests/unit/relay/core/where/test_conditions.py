"""Conditions in use: sharing, kept results, and limits."""

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.where import conditions as conditions_module
from tickertape.relay.core.where import functions
from tickertape.relay.core.where.condition import Condition, view_of
from tickertape.relay.core.where.conditions import Conditions
from tickertape.relay.core.where.tokens import WhereError


@dataclass
class Event:
    """Event in memory."""

    encoded: bytes
    state: bool = False
    verdicts: int = 0


def event(state: bool = False, **fields: object) -> Event:
    """Return an event with these fields."""
    return Event(orjson.dumps({"subject": "log.info.x", "seq": 1, "event": fields}), state)


def test_a_result_is_kept() -> None:
    """A condition in use is evaluated once for each event; states pass without an evaluation."""
    conditions = Conditions(list)
    condition = conditions.use(Condition("event.n == 2"), "")
    two, three = event(n=2), event(n=3)
    assert not condition.is_known(two)
    assert [condition.passes(two), condition.passes(three)] == [True, False]
    assert condition.is_known(three)
    two.encoded = three.encoded = b"not parsed again"
    assert [condition.passes(two), condition.passes(three)] == [True, False]
    assert condition.passes(Event(b"not parsed", state=True))
    assert condition.is_known(Event(b"", state=True))


def test_an_unused_condition_keeps_nothing() -> None:
    """A condition that no session uses has no slot, and evaluates each time."""
    condition, two = Condition("event.n == 2"), event(n=2)
    assert condition.passes(two)
    assert two.verdicts == 0
    assert not condition.is_known(two)


@pytest.mark.parametrize("fields", [{}, {"n": "x"}, {"n": None}, {"n": [1]}, {"n": {"n": 2}}])
def test_an_expression_that_ends_in_an_error_does_not_match(fields: dict[str, Any]) -> None:
    """A missing field or a wrong type is no match, and neither is its negation."""
    for source in ("event.n > 1", "!(event.n > 1)", "event.n / 0 == 1", "event.n"):
        assert not Condition(source).passes(event(**fields))


def test_sessions_with_the_same_expression_share_its_condition() -> None:
    """The same expression is one condition until its last session releases it, and then its slot is free."""
    memory = [event(n=1), event(n=2)]
    conditions = Conditions(lambda: memory)
    first = conditions.use(Condition("event.n == 1"), "alice")
    assert conditions.use(Condition("event.n == 1"), "bob") is first
    assert conditions.use(first, "") is first
    other = conditions.use(Condition("event.n == 2"), "bob")
    assert other.slot != first.slot
    assert len(conditions) == 2
    for one in memory:
        first.evaluate(one, view_of(one))
        other.evaluate(one, view_of(one))
    for client in ("alice", "bob", ""):
        conditions.release(first, client)
    assert len(conditions) == 1
    conditions._sweep()
    third = conditions.use(Condition("event.n == 2 || event.n == 1"), "alice")
    assert third.slot == first.slot
    assert [third.is_known(one) for one in memory] == [False, False]
    assert [other.is_known(one) for one in memory] == [True, True]
    assert [third.passes(one) for one in memory] == [True, True]


def test_the_number_of_conditions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a further condition is rejected, and known ones are not; a released one makes room."""
    monkeypatch.setattr(conditions_module, "MAX_CONDITIONS", 3)
    conditions = Conditions(list)
    used = [conditions.use(Condition(f"event.n == {n}"), "") for n in range(3)]
    with pytest.raises(ProtocolError, match="3 different conditions") as caught:
        conditions.use(Condition("event.n == 3"), "")
    assert caught.value.code is ErrorCode.TOO_MANY
    assert conditions.use(Condition("event.n == 1"), "") is used[1]
    conditions.release(used[2], "")
    assert conditions.use(Condition("event.n == 3"), "").slot == 2


def test_slots_return_in_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that come and go do not make the relay walk through its events each time."""
    monkeypatch.setattr(conditions_module, "MAX_STALE", 10)
    walks = []
    conditions = Conditions(lambda: walks.append(1) or [])  # type: ignore[func-returns-value]
    for n in range(100):
        conditions.release(conditions.use(Condition(f"event.n == {n}"), "alice"), "alice")
    assert len(walks) == 10
    assert repr(conditions) == "Conditions(0 distinct, 0 used)"
    assert not conditions._clients


def test_the_conditions_of_one_client_are_bounded_by_their_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token subject cannot take the time of all; its equal conditions count once."""
    monkeypatch.setattr(conditions_module, "MAX_CLIENT_COST", 10)
    conditions = Conditions(list)
    first = conditions.use(Condition("event.a == 1 && event.b == 2"), "alice")
    assert first.cost == 5
    assert conditions.use(Condition("event.a == 1 && event.b == 2"), "alice") is first
    conditions.use(Condition("event.a == 2 && event.b == 2"), "alice")
    with pytest.raises(ProtocolError, match="'alice' cost 12, more than 10") as caught:
        conditions.use(Condition("event.a == 3"), "alice")
    assert caught.value.code is ErrorCode.TOO_MANY
    conditions.use(Condition("event.a == 3"), "bob")
    conditions.release(first, "alice")
    conditions.release(first, "alice")
    conditions.use(Condition("event.a == 3"), "alice")


def test_conditions_are_equal_by_their_expression() -> None:
    """Requests with the same expression are equal."""
    assert Condition("event.a == 1") == Condition("event.a == 1")
    assert hash(Condition("event.a == 1")) == hash(Condition("event.a == 1"))
    assert Condition("event.a == 1") != Condition("event.a == 2")
    assert repr(Condition("event.a == 1")) == "Condition('event.a == 1')"


def test_matches_without_re2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without RE2, only a condition that needs it is rejected."""
    monkeypatch.setitem(__import__("sys").modules, "tickertape.user_regex", None)
    with pytest.raises(WhereError, match=r"pip install 'tickertape\[where\]'") as caught:
        Condition("event.message.matches('a')")
    assert caught.value.problem == functions.NO_REGEX
    Condition("event.message.contains('a')")
