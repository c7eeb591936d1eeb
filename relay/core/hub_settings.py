"""Settings of the hub."""

from dataclasses import dataclass

from tickertape.contracts.messages import HEARTBEAT_MS, Mode
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.replay_cache import MAX_BYTES


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Settings of the hub.

    Attributes:
        relay: relay name in ``welcome``.
        rate: maximum log events per second for each client; 0 means no limit.
        complete_rate: maximum log events per second that a grant can set for mode ``complete``; 0 means no
            limit.
        log_events: maximum number of events in the log.
        log_bytes: maximum bytes of events in the log.
        replay_bytes: maximum bytes of replayed chunks of the stream.
        max_catch_up: maximum number of missed events that a session in mode ``live`` is sent.
        heartbeat_ms: maximum milliseconds between two messages to a client.
    """

    relay: str = "relay"
    rate: float = 100.0
    complete_rate: float = 5_000.0
    log_events: int = 100_000
    log_bytes: int = 128 * 1024 * 1024
    replay_bytes: int = MAX_BYTES
    max_catch_up: int = 1_000
    heartbeat_ms: int = HEARTBEAT_MS

    def rate_for(self, mode: Mode, grant: Grant) -> float:
        """Return the maximum log events per second of a client; 0 means no limit."""
        if mode == "live":
            return self.rate if grant.rate is None else grant.rate
        if mode == "complete" and grant.rate:
            return min(grant.rate, self.complete_rate) if self.complete_rate else grant.rate
        return 0.0
