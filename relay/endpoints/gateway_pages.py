"""Pages about gateways: availability, statuses, incidents, and the state at a time.

Invariants:

1. A gateway whose status subject the client may not receive is neither listed nor counted, and its recoveries
   are shown only to a client that may receive them.
2. No page keeps the event loop busy for much longer than ``page_turns.MAX_SECONDS``, whatever a timeline has.
3. A page that lacks statuses of its range, because a gateway has too many, says so: ``truncated``.
"""

import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import Any, Final

import orjson
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import Status, format_time
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.timeline.availability import Durations, Incident, incidents_of, measure
from tickertape.relay.core.timeline.changes import PHASES, GatewayKey
from tickertape.relay.core.timeline.gateway_filter import GatewayFilter
from tickertape.relay.core.timeline.timeline import Entry, Timeline
from tickertape.relay.core.timeline.timelines import Timelines, subjects_of
from tickertape.relay.endpoints.gateway_queries import GatewayQuery, Moment
from tickertape.relay.endpoints.page_turns import Turn
from tickertape.relay.endpoints.read_endpoint import NotFoundError
from tickertape.relay.ingest.gateway_history import GatewayHistory

WINDOWS: Final = {"24h": 1, "7d": 7, "30d": 30, "90d": 90}
"""Days of each range that availability is given for, shortest first."""

DEFAULT_RANGE: Final = Moment(ago=7 * 86_400.0)
"""Range of incidents and statuses without ``since``."""

RECOVERY_GRACE: Final = 5_000
"""Milliseconds after an incident in which a step still belongs to its recovery."""

_DAY: Final = 86_400_000

Json = dict[str, Any]


class GatewayPages:
    """Pages about gateways.

    Args:
        history: history of the gateways.
        now: returns UNIX seconds.
    """

    def __init__(self, history: GatewayHistory, now: Callable[[], float]) -> None:
        self._history = history
        self._now = now

    async def listing(self, query: GatewayQuery, turn: Turn) -> bytes:
        """Return gateways with their status and their availability."""
        now = self._now()
        until = _until(query, now)
        if query.since is None:
            starts = {name: until - days * _DAY for name, days in reversed(WINDOWS.items())}
        else:
            starts = {"range": min(until, query.since.at(now))}
        ranges = list(starts.values())

        async def describe(timeline: Timeline) -> Json | None:
            durations = await turn.compute(measure(timeline, ranges, until))
            entry = timeline.at(until)
            longest = durations[0]
            removed = entry is not None and entry.status is Status.REMOVED
            if entry is None or (removed and not longest.up + longest.down + longest.planned):
                return None
            availability = {
                name: _durations(one) for name, one in reversed(list(zip(starts, durations, strict=True)))
            }
            return {
                **self._state(timeline, entry, until),
                "availability": availability,
                "truncated": timeline.status_start > ranges[0],
            }

        page: Json = {"until": _time(until)}
        if query.since is not None:
            page = {"since": _time(ranges[0]), **page}
        return await self._gateways(query, turn, page, describe)

    async def state(self, query: GatewayQuery, turn: Turn) -> bytes:
        """Return the state of gateways at a time."""
        at = _until(query, self._now())

        page: Json = {"at": _time(at), "truncated": False}

        async def describe(timeline: Timeline) -> Json | None:
            entry = timeline.at(at)
            page["truncated"] |= timeline.status_start > at
            if entry is None or entry.status is Status.REMOVED:
                return None
            return self._state(timeline, entry, at)

        return await self._gateways(query, turn, page, describe)

    async def statuses(self, query: GatewayQuery, turn: Turn) -> bytes:
        """Return the statuses and recoveries of one gateway."""
        timeline = self._find(query)
        now = self._now()
        until = _until(query, now)
        since = min(until, (query.since or DEFAULT_RANGE).at(now))
        (durations,) = await turn.compute(measure(timeline, [since], until))
        # The status at the beginning of the range began before it.
        first, last = max(0, timeline.index_at(since)), timeline.index_at(until)
        count = last + 1 - first
        if query.newest_first:
            first = max(first, last + 1 - query.limit)
        indexes = range(first, min(last + 1, first + query.limit))
        page: Json = {
            "gateway_type": timeline.gateway.type,
            "gateway_id": timeline.gateway.id,
            "since": _time(since),
            "until": _time(until),
            "availability": {"range": _durations(durations)},
            "statuses": [self._entry(timeline.entry(index)) for index in indexes],
            "more": count > len(indexes),
            "truncated": timeline.status_start > since,
        }
        if query.recoveries is not None and query.recoveries.allows(timeline.gateway):
            page["truncated"] |= timeline.step_start > since
            steps = timeline.steps(since, until)
            page["recoveries"] = [
                {"timestamp": _time(step.time), "phase": PHASES[step.phase], "attempt": step.attempt}
                for step in islice(steps, query.limit)
            ]
        return orjson.dumps(page)

    async def incidents(self, query: GatewayQuery, turn: Turn) -> bytes:
        """Return the incidents of all gateways, newest first."""
        check_loaded(self._history)
        now = self._now()
        until = _until(query, now)
        since = min(until, (query.since or DEFAULT_RANGE).at(now))
        count, truncated = 0, False
        newest: list[tuple[int, int, Timeline, Incident, int]] = []
        async for timeline in self._visible(query, turn):
            found = await turn.compute(incidents_of(timeline, since, until))
            count += len(found)
            truncated |= timeline.status_start > since
            following = until + RECOVERY_GRACE + 1
            for number, incident in enumerate(reversed(found)):
                if len(newest) == query.limit and incident.start <= newest[0][0]:
                    break
                # The number decides between incidents that began simultaneously.
                item = (incident.start, number - count, timeline, incident, following)
                push = heapq.heappush if len(newest) < query.limit else heapq.heapreplace
                push(newest, item)
                following = incident.start
        described = []
        for _, _, timeline, incident, following in sorted(newest, reverse=True):
            described.append(self._incident(query, timeline, incident, until, following))
            await turn.pause()
        return orjson.dumps(
            {
                "since": _time(since),
                "until": _time(until),
                "incidents": described,
                "count": count,
                "more": count > len(newest),
                "truncated": truncated,
            }
        )

    async def _gateways(
        self,
        query: GatewayQuery,
        turn: Turn,
        page: Json,
        describe: Callable[[Timeline], Awaitable[Json | None]],
    ) -> bytes:
        check_loaded(self._history)
        found: list[Json] = []
        following: GatewayKey | None = None
        last: GatewayKey | None = None
        async for timeline in self._visible(query, turn):
            described = await describe(timeline)
            if described is None:
                continue
            if len(found) == query.limit:
                following = last
                break
            found.append(described)
            last = timeline.gateway
        page = {**page, "gateways": found, "more": following is not None}
        if following is not None:
            page["next"] = subjects_of(following)[0].removeprefix("gateway.status.")
        return orjson.dumps(page)

    async def _visible(self, query: GatewayQuery, turn: Turn) -> AsyncIterator[Timeline]:
        """Yield the timelines that the client may see, and let other tasks run meanwhile."""
        for timeline in self._history.timelines.after(query.after):
            if query.statuses.allows(timeline.gateway):
                yield timeline
            await turn.pause()

    def _find(self, query: GatewayQuery) -> Timeline:
        check_loaded(self._history)
        assert query.gateway is not None
        return find_gateway(self._history.timelines, query.gateway, query.statuses)

    def _state(self, timeline: Timeline, entry: Entry, at: int) -> Json:
        since = timeline.status_since(timeline.index_at(at))
        state = self._entry(entry, at)
        del state["timestamp"]
        key = timeline.gateway
        return {"gateway_type": key.type, "gateway_id": key.id, "since": _time(since), **state}

    def _entry(self, entry: Entry, at: int | None = None) -> Json:
        texts = self._history.timelines.texts
        found: Json = {"timestamp": _time(entry.time), "status": str(entry.status)}
        if entry.text:
            found["error" if entry.is_error else "reason"] = texts[entry.text]
        silence = entry.silence
        if entry.silenced and silence is None:
            found["silenced"] = {}
        elif silence is not None and (at is None or silence.until > at):
            found["silenced"] = {
                "until": _time(silence.until),
                "reason": texts[silence.reason],
                "by": texts[silence.by],
            }
        return found

    def _incident(
        self, query: GatewayQuery, timeline: Timeline, incident: Incident, until: int, following: int
    ) -> Json:
        """Describe an incident; ``following`` is the time of the next one, to which later steps belong."""
        end = until if incident.end is None else incident.end
        found: Json = {
            "gateway_type": timeline.gateway.type,
            "gateway_id": timeline.gateway.id,
            "start": _time(incident.start),
            "end": None if incident.end is None else _time(incident.end),
            "duration_s": (end - incident.start) / 1000,
            "down_s": incident.down / 1000,
            "planned_s": incident.planned / 1000,
            "planned": not incident.down,
        }
        if error := timeline.first_error(incident.start, incident.last):
            found["error"] = self._history.timelines.texts[error]
        if query.recoveries is not None and query.recoveries.allows(timeline.gateway):
            # No step belongs to two incidents, so that together they cost no more than all steps.
            steps = list(timeline.steps(incident.start, min(end + RECOVERY_GRACE, following - 1)))
            if steps:
                attempts = max(step.attempt for step in steps)
                found["recovery"] = {"phase": PHASES[steps[-1].phase], "attempts": attempts}
        return found


def check_loaded(history: GatewayHistory) -> None:
    """Check that the history is loaded: until then, a gateway that exists may be unknown.

    Raises:
        ProtocolError: it is not loaded.
    """
    if not history.loaded:
        reason = history.problem or "it is being loaded; retry later"
        raise ProtocolError(ErrorCode.UNAVAILABLE, f"the history of gateways is not available: {reason}")


def find_gateway(timelines: Timelines, gateway: GatewayKey, statuses: GatewayFilter) -> Timeline:
    """Return the timeline of a gateway in a path.

    Args:
        timelines: timelines of all gateways.
        gateway: the gateway.
        statuses: filter of the gateways whose statuses the client may see.

    Raises:
        NotFoundError: it is unknown, or the client may not see it.
    """
    timeline = timelines.get(gateway)
    if timeline is not None and statuses.allows(gateway):
        return timeline
    raise NotFoundError(f"no gateway {gateway.type[:80]}/{gateway.id[:80]}")


def _durations(durations: Durations) -> Json:
    ratio = durations.availability
    return {
        "availability": None if ratio is None else round(ratio, 6),
        "up_s": durations.up / 1000,
        "down_s": durations.down / 1000,
        "planned_s": durations.planned / 1000,
        "unknown_s": durations.unknown / 1000,
        "incidents": durations.incidents,
    }


def _until(query: GatewayQuery, now: float) -> int:
    return round(now * 1000) if query.until is None else query.until.at(now)


def _time(milliseconds: int) -> str:
    return format_time(milliseconds / 1000)
