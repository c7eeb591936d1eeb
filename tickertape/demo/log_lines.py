"""Log lines of the demo's services: plausible messages about the gateways.

This module does no I/O and reads no clock. It produces records; the log service formats them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tickertape.demo.fleet import FLEET, Condition, DemoGateway

DEBUG: Final = "DEBUG"
INFO: Final = "INFO"
WARN: Final = "WARN"
ERROR: Final = "ERROR"


@dataclass(frozen=True, slots=True)
class Record:
    """Log record of one or more lines.

    Attributes:
        level: log level.
        gateway: id of the gateway that the record is about.
        message: text of the first line.
        continuation: additional lines in plain text, such as a traceback.
        fields: additional fields in JSON.
    """

    level: str
    gateway: str
    message: str
    continuation: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)


UNSAFE_TEXT_EVERY: Final = 120
"""Number of routine lines from one with markup or terminal escapes to the next: about twenty seconds."""

TRACEBACK_EVERY: Final = 350
"""Number of routine lines from one traceback to the next."""

_REACHABLE: Final = (Condition.HEALTHY, Condition.SLOW)
_TRACEBACK: Final = (
    "Traceback (most recent call last):",
    '  File "/opt/trading/gateway_manager/session.py", line 214, in on_rtn_order',
    "    order = self.orders[message.order_ref]",
    "            ~~~~~~~~~~~^^^^^^^^^^^^^^^^^^^",
    "KeyError: '000000417'",
)
# Real logs contain text that was never meant for a web page or a terminal; both must display it as text.
_UNSAFE_TEXTS: Final = (
    "strategy comment: <b>stop loss</b> <img src=x onerror=alert(1)> & carry on",
    "\x1b[31mrisk limit\x1b[0m reached 92 % of 5 000 000 \x1b[1mCNY\x1b[22m",
    "counterparty says: Größe über 5 Lots abgelehnt, 9 417,50 €/t",
)
_FAILURE_MESSAGES: Final = {
    Condition.DROPPING: (ERROR, "front disconnected, reason 4097 (network read failed)"),
    Condition.REFUSING: (ERROR, "connection refused, is the gateway down?"),
    Condition.HANGING: (ERROR, "no heartbeat for 3 s, closing session"),
    Condition.FAILING: (ERROR, "health check returned 503"),
    Condition.SLOW: (WARN, "slow responses, p99 above 400 ms"),
}


class GatewayManager:
    """Source of the gateway manager's log records.

    Args:
        random: source of randomness.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._attempts: dict[str, int] = {}
        self._written = 0

    def routine(self, conditions: dict[str, Condition]) -> Record:
        """Return a routine record, occasionally with unsafe text or a traceback."""
        random = self._random
        self._written += 1
        failing = [g for g in FLEET if conditions.get(g.id, Condition.HEALTHY) is not Condition.HEALTHY]
        reachable = [g for g in FLEET if conditions.get(g.id, Condition.HEALTHY) in _REACHABLE]
        if failing and random.random() < 0.08:
            return self._failure_record(random.choice(failing), conditions)
        gateway = random.choice(reachable)
        cycle, rest = divmod(self._written, UNSAFE_TEXT_EVERY)
        if rest == UNSAFE_TEXT_EVERY // 3:
            return _record(INFO, gateway, _UNSAFE_TEXTS[cycle % len(_UNSAFE_TEXTS)])
        if self._written % TRACEBACK_EVERY == TRACEBACK_EVERY // 2:
            return Record(ERROR, gateway.id, "callback failed, order not tracked", _TRACEBACK)
        draw = random.random()
        if draw < 0.28:
            return _record(DEBUG, gateway, f"heartbeat acknowledged in {random.randint(1, 48)} ms")
        if draw < 0.48 or not gateway.instruments:
            return _record(
                DEBUG, gateway, f"queue depth {random.randint(0, 12)}, {random.randint(40, 900)} msg/s"
            )
        instrument = random.choice(gateway.instruments)
        if draw < 0.66:
            return _record(INFO, gateway, f"subscribed {instrument}")
        if draw < 0.82:
            return _record(INFO, gateway, f"position of {instrument} confirmed: {random.randint(-20, 40)}")
        if draw < 0.935:
            return _record(INFO, gateway, f"account snapshot saved, {random.randint(3, 60)} positions")
        if draw < 0.975:
            return _record(
                WARN, gateway, f"slow callback: on_tick took {random.randint(52, 240)} ms, limit 50 ms"
            )
        if draw < 0.992:
            return _record(WARN, gateway, f"clock is {random.randint(11, 60)} ms ahead of the exchange")
        return _record(ERROR, gateway, f"order for {instrument} rejected: insufficient margin")

    def changes(self, before: dict[str, Condition], now: dict[str, Condition]) -> Iterator[Record]:
        """Yield a record for each gateway that failed or recovered."""
        for gateway in FLEET:
            old, new = before.get(gateway.id, Condition.HEALTHY), now.get(gateway.id, Condition.HEALTHY)
            if old is new:
                continue
            if new is Condition.HEALTHY:
                attempt = self._attempts.pop(gateway.id, 0) + 1
                yield _record(INFO, gateway, f"connected and logged in on attempt {attempt}, trading enabled")
            else:
                self._attempts[gateway.id] = 0
                level, text = _FAILURE_MESSAGES[new]
                yield _record(level, gateway, text)

    def burst(self) -> Iterator[Record]:
        """Yield several hundred records: a snapshot of the market after a reconnect."""
        random = self._random
        gateway = random.choice([g for g in FLEET if g.instruments])
        count = random.randint(250, 600)
        yield _record(INFO, gateway, f"replaying {count} snapshots after a trading session change")
        for number in range(1, count + 1):
            instrument = random.choice(gateway.instruments)
            if number % 97 == 0:
                yield _record(WARN, gateway, f"snapshot {number} of {instrument} out of order, reordered")
            else:
                price = random.uniform(10, 5000)
                text = f"snapshot {number}/{count} {instrument} bid {price:.2f} ask {price + 0.2:.2f}"
                yield _record(DEBUG if number % 4 else INFO, gateway, text)
        yield _record(INFO, gateway, "replay complete")

    def _failure_record(self, gateway: DemoGateway, conditions: dict[str, Condition]) -> Record:
        if conditions[gateway.id] is Condition.SLOW:
            return _record(WARN, gateway, f"request took {self._random.randint(400, 700)} ms, limit 250 ms")
        attempt = self._attempts[gateway.id] = self._attempts.get(gateway.id, 0) + 1
        return _record(WARN, gateway, f"reconnect attempt {attempt} failed, retrying")


class OrderRouter:
    """Source of the order router's log records, which are written as JSON.

    Args:
        random: source of randomness.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._order = 41_000

    def routine(self, conditions: dict[str, Condition]) -> Record:
        """Return a record about an order."""
        random = self._random
        gateway = random.choice([g for g in FLEET if g.instruments])
        self._order += 1
        fields: dict[str, Any] = {
            "order_id": f"R{self._order:08d}",
            "instrument": random.choice(gateway.instruments),
            "quantity": random.randint(1, 20),
        }
        if conditions.get(gateway.id, Condition.HEALTHY) not in _REACHABLE:
            text = f"order {fields['order_id']} held: {gateway.id} is unreachable"
            return Record(WARN, gateway.id, text, fields=fields)
        draw = random.random()
        fields["latency_us"] = round(random.lognormvariate(6.0, 0.6))
        if draw < 0.45:
            level, action = INFO, "accepted by"
        elif draw < 0.8:
            level, action = INFO, "filled at"
        elif draw < 0.985:
            level, action = DEBUG, "acknowledged by"
        else:
            level, action = ERROR, "rejected by"
            fields["reason"] = "price outside the daily limit"
        return Record(level, gateway.id, f"order {fields['order_id']} {action} {gateway.id}", fields=fields)


def _record(level: str, gateway: DemoGateway, text: str) -> Record:
    return Record(level, gateway.id, text)
