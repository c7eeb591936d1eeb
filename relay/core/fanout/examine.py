"""Evaluation of a condition for events in memory, in bounded steps.

A client with a condition that few events fulfil must not delay the others while it catches up.
"""

from typing import Final

from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.filters import Filter

STEP_EVALUATIONS: Final = 2_000
"""Maximum number of evaluations in one step, which take about 4 ms."""

CHEAP_PER_EVALUATION: Final = 16
"""Number of events with a known result, or that a filter does not match, which count as one evaluation."""


def examine(
    log: EventLog, event_filter: Filter, after: int, upto: int, limit: int, *, newest_first: bool = False
) -> tuple[int, int]:
    """Evaluate the condition of a filter for events whose subject it matches, ``after < sequence <= upto``.

    Args:
        log: event log, or a replay chunk.
        event_filter: filter with a condition.
        after: position before the events.
        upto: position of the last one.
        limit: maximum number of evaluations.
        newest_first: whether to proceed from the end.

    Returns:
        The position reached, which is that of an event unless all events were examined, and how much of the
        limit was spent.
    """
    where, count, cheap = event_filter.where, 0, 0
    assert where is not None
    position = upto if newest_first else after
    for record in log.between(after, upto, newest_first=newest_first):
        if count + cheap // CHEAP_PER_EVALUATION >= limit:
            return position, limit
        if event_filter.matches(record.route.subject) and not where.is_known(record):
            where.passes(record)
            count += 1
        else:
            cheap += 1
        position = record.seq - 1 if newest_first else record.seq
    return (after if newest_first else upto), count + cheap // CHEAP_PER_EVALUATION
