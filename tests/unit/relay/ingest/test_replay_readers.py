"""Look-ups of start positions: clients take turns."""

import asyncio
from dataclasses import dataclass
from typing import Any

from tickertape.relay.ingest.replay_readers import LOOKUP_BATCH, ReplayReaders
from tickertape.relay.ingest.replay_requests import ReplayRequests

from tests.support.clients.fake_link import Stage
from tests.support.clients.feed_client import run
from tickertape.names import Names


@dataclass(frozen=True)
class Waiting:
    """Session that waits for its position."""

    owner: str
    number: int
    locating: bool = True


class Readers(ReplayReaders):
    """Readers that record batches; look-ups of the second batch fail."""

    def __init__(self, requests: ReplayRequests, late: list[Waiting]) -> None:
        super().__init__(Stage(stream=True).hub, requests, Names(), (">",), lambda: 0.0)
        self.batches: list[list[Any]] = []
        self.late = late

    async def _locate_batch(self, sessions: list[Any], stored: dict[int, int | None]) -> BaseException | None:
        self.batches.append(sessions)
        if len(self.batches) == 1:
            self._requests.request_positions(*self.late)  # type: ignore[arg-type]
        return OSError("no answer") if len(self.batches) == 2 else None


def test_clients_take_turns_in_look_ups() -> None:
    """A client with many sessions delays those of others by a batch at most, also after an error."""
    greedy = [Waiting("greedy", n) for n in range(20 * LOOKUP_BATCH)]
    early, late = Waiting("early", 0), [Waiting("late", 0), Waiting("later", 0)]

    async def part() -> Readers:
        requests = ReplayRequests()
        readers = Readers(requests, late)
        requests.request_positions(*greedy, early)  # type: ignore[arg-type]
        task = asyncio.ensure_future(readers._locate_sessions())
        while sum(map(len, readers.batches)) < len(greedy) + 3 + LOOKUP_BATCH:
            await asyncio.sleep(0.01)
        task.cancel()
        return readers

    batches = run(part()).batches
    assert early in batches[0]
    assert all(session in batches[1] for session in late)
    assert all(session in batches[2] for session in late), "the failed ones take turns again"
    assert {session for batch in batches for session in batch} == {*greedy, early, *late}
    assert max(map(len, batches)) == LOOKUP_BATCH
