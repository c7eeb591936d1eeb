"""What an operator sets for the hub."""

from dataclasses import dataclass

from tickertape.contracts.messages import HEARTBEAT_MS, Mode
from tickertape.relay.core.grants import Grant


@dataclass(frozen=True, slots=True)
class HubSettings:
    """What an operator sets.

    Attributes:
        relay: name in ``welcome``.
        rate: log events per second and client; 0 means no limit.
        log_events: most events in the log.
        log_bytes: most bytes in the log.
        complete_rate: most log events per second and client in mode ``complete``, under a grant with a rate.
        max_catch_up: most matching events that a session of mode ``live`` gets when it catches up.
        heartbeat_ms: longest silence.
    """

    relay: str = "relay"
    rate: float = 100.0
    complete_rate: float = 5_000.0
    log_events: int = 100_000
    log_bytes: int = 128 * 1024 * 1024
    max_catch_up: int = 1_000
    heartbeat_ms: int = HEARTBEAT_MS

    def rate_for(self, mode: Mode, grant: Grant) -> float:
        """Log events per second that a client gets; 0 means no limit."""
        if mode == "live":
            return self.rate if grant.rate is None else grant.rate
        if mode == "complete" and grant.rate:
            return min(grant.rate, self.complete_rate) if self.complete_rate else grant.rate
        return 0.0
