"""Condition: the CEL expression of ``where``, which an event has to fulfil.

A condition applies to log events only, as ``level`` does: the newest event of a state is chosen by its
subject, and a client that missed a transition would keep an outdated state.
"""

from typing import Any, Final, Protocol

import orjson
from tickertape.contracts.messages import MAX_WHERE_BYTES
from tickertape.relay.core.where.compiler import compile_condition
from tickertape.relay.core.where.syntax import parse
from tickertape.relay.core.where.tokens import WhereError
from tickertape.relay.core.where.values import MAX_COST, EventView


class Conditional(Protocol):
    """Event to which conditions apply.

    Attributes:
        encoded: JSON of ``{"subject","seq","event"}``.
        state: whether only the newest event of its subject matters.
        verdicts: results of the conditions that have been evaluated for it: two bits each.
    """

    encoded: bytes
    state: bool
    verdicts: int


class Condition:
    """Condition of a filter.

    Args:
        source: CEL expression.

    Attributes:
        source: as given.
        cost: approximate cost of an evaluation, in operators.
        slot: number of its two bits in the verdicts of events; None if its results are not kept.

    Raises:
        WhereError: the expression is too long or not valid.
    """

    __slots__ = ("_evaluate", "_known", "_matched", "cost", "slot", "source")

    def __init__(self, source: str) -> None:
        # Before anything is parsed: the time that a request takes is bounded by its length.
        if len(source) > MAX_WHERE_BYTES or len(source.encode("utf-8", "surrogatepass")) > MAX_WHERE_BYTES:
            raise WhereError(f"the condition has more than {MAX_WHERE_BYTES} bytes", MAX_WHERE_BYTES + 1)
        compiled = compile_condition(parse(source))
        self.source = source
        self.cost = compiled.cost
        self.slot: int | None = None
        self._evaluate = compiled.evaluate
        self._known = self._matched = 0

    def __repr__(self) -> str:
        return f"Condition({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def keep_results(self, slot: int) -> None:
        """Keep results from now on, in the bits of a slot that no other condition uses."""
        self.slot = slot
        self._known, self._matched = 1 << 2 * slot, 2 << 2 * slot

    def is_known(self, event: Conditional) -> bool:
        """Return whether ``passes`` takes no evaluation."""
        return event.state or event.verdicts & self._known != 0

    def passes(self, event: Conditional) -> bool:
        """Return whether an event is a state, or fulfils the condition."""
        if event.state:
            return True
        verdicts = event.verdicts
        if verdicts & self._known:
            return verdicts & self._matched != 0
        return self.evaluate(event, view_of(event))

    def evaluate(self, event: Conditional, view: EventView) -> bool:
        """Evaluate the condition for an event, and keep the result.

        Args:
            event: event that is not a state.
            view: its fields, which several conditions can share.
        """
        view.budget = MAX_COST
        matched = self._evaluate(view) is True
        event.verdicts |= self._known | self._matched if matched else self._known
        return matched


def view_of(event: Conditional) -> EventView:
    """Parse an event."""
    fields: dict[str, Any] = orjson.loads(event.encoded)["event"]
    return EventView(fields)


ANY_EVENT: Final = ""
"""Key of a filter without a condition."""
