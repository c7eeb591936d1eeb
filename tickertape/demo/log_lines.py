"""What the demo's services have to say: believable log lines about the gateways. No I/O and no clock.

Every function returns records; how one is written (plain text, JSON) is the service's affair.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tickertape.demo.fleet import FLEET, Member, Mood

DEBUG: Final = "DEBUG"
INFO: Final = "INFO"
WARN: Final = "WARN"
ERROR: Final = "ERROR"


@dataclass(frozen=True, slots=True)
class Record:
    """One line, or a few that belong together.

    Attributes:
        gateway: whom it is about.
        more: lines that follow in plain text, such as a traceback.
        fields: further fields in JSON.
    """

    level: str
    gateway: str
    message: str
    more: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)


ODDITY_EVERY: Final = 120
"""Everyday lines from one that holds markup or an escape to the next: some twenty seconds."""

TRACEBACK_EVERY: Final = 350
_REACHABLE: Final = (Mood.WELL, Mood.SLOW)
_TRACEBACK: Final = (
    "Traceback (most recent call last):",
    '  File "/opt/trading/gateway_manager/session.py", line 214, in on_rtn_order',
    "    order = self.orders[message.order_ref]",
    "            ~~~~~~~~~~~^^^^^^^^^^^^^^^^^^^",
    "KeyError: '000000417'",
)
# Real logs hold what was never meant for a page or a terminal; both must show it as text.
_ODDITIES: Final = (
    "strategy comment: <b>stop loss</b> <img src=x onerror=alert(1)> & carry on",
    "\x1b[31mrisk limit\x1b[0m reached 92 % of 5 000 000 \x1b[1mCNY\x1b[22m",
    "counterparty says: Größe über 5 Lots abgelehnt, 9 417,50 €/t",
)
_LOST: Final = {
    Mood.DROPPING: (ERROR, "front disconnected, reason 4097 (network read failed)"),
    Mood.REFUSING: (ERROR, "connection refused, is the gateway down?"),
    Mood.HANGING: (ERROR, "no heartbeat for 3 s, session is given up"),
    Mood.FAILING: (ERROR, "health page answers 503"),
    Mood.SLOW: (WARN, "answers late, p99 above 400 ms"),
}


class Manager:
    """Lines of the gateway manager.

    Args:
        random: where chance comes from.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._attempts: dict[str, int] = {}
        self._written = 0

    def everyday(self, moods: dict[str, Mood]) -> Record:
        """One line of a quiet moment; now and then an oddity or a traceback, in their turn."""
        choose = self._random
        self._written += 1
        ill = [member for member in FLEET if moods.get(member.id, Mood.WELL) is not Mood.WELL]
        reachable = [member for member in FLEET if moods.get(member.id, Mood.WELL) in _REACHABLE]
        if ill and choose.random() < 0.08:
            return self._trouble(choose.choice(ill), moods)
        member = choose.choice(reachable)
        turn, rest = divmod(self._written, ODDITY_EVERY)
        if rest == ODDITY_EVERY // 3:
            return _say(INFO, member, _ODDITIES[turn % len(_ODDITIES)])
        if self._written % TRACEBACK_EVERY == TRACEBACK_EVERY // 2:
            return Record(ERROR, member.id, "callback failed, order is not tracked", _TRACEBACK)
        dice = choose.random()
        if dice < 0.28:
            return _say(DEBUG, member, f"heartbeat answered in {choose.randint(1, 48)} ms")
        if dice < 0.48 or not member.instruments:
            return _say(
                DEBUG, member, f"queue depth {choose.randint(0, 12)}, {choose.randint(40, 900)} msg/s"
            )
        instrument = choose.choice(member.instruments)
        if dice < 0.66:
            return _say(INFO, member, f"subscribed {instrument}")
        if dice < 0.82:
            return _say(INFO, member, f"position of {instrument} confirmed: {choose.randint(-20, 40)}")
        if dice < 0.935:
            return _say(INFO, member, f"account snapshot saved, {choose.randint(3, 60)} positions")
        if dice < 0.975:
            return _say(
                WARN, member, f"slow callback: on_tick took {choose.randint(52, 240)} ms, limit 50 ms"
            )
        if dice < 0.992:
            return _say(WARN, member, f"clock is {choose.randint(11, 60)} ms ahead of the exchange")
        return _say(ERROR, member, f"order for {instrument} rejected: not enough margin")

    def changes(self, before: dict[str, Mood], now: dict[str, Mood]) -> Iterator[Record]:
        """Lines about gateways that fell ill or recovered."""
        for member in FLEET:
            was, is_now = before.get(member.id, Mood.WELL), now.get(member.id, Mood.WELL)
            if was is is_now:
                continue
            if is_now is Mood.WELL:
                attempts = self._attempts.pop(member.id, 0) + 1
                yield _say(INFO, member, f"connected and logged in at attempt {attempts}, orders may pass")
            else:
                self._attempts[member.id] = 0
                yield _say(*_lost(is_now, member))

    def burst(self) -> Iterator[Record]:
        """Several hundred lines at once: a snapshot of the market after a reconnect."""
        choose = self._random
        member = choose.choice([member for member in FLEET if member.instruments])
        count = choose.randint(250, 600)
        yield _say(INFO, member, f"replaying {count} snapshots after a change of the trading session")
        for number in range(1, count + 1):
            instrument = choose.choice(member.instruments)
            if number % 97 == 0:
                yield _say(WARN, member, f"snapshot {number} of {instrument} is out of order, sorted in")
            else:
                price = choose.uniform(10, 5000)
                text = f"snapshot {number}/{count} {instrument} bid {price:.2f} ask {price + 0.2:.2f}"
                yield _say(DEBUG if number % 4 else INFO, member, text)
        yield _say(INFO, member, "replay done")

    def _trouble(self, member: Member, moods: dict[str, Mood]) -> Record:
        if moods[member.id] is Mood.SLOW:
            return _say(WARN, member, f"request took {self._random.randint(400, 700)} ms, limit 250 ms")
        attempt = self._attempts[member.id] = self._attempts.get(member.id, 0) + 1
        return _say(WARN, member, f"reconnect attempt {attempt} failed, trying again")


class Router:
    """Lines of the order router, which writes JSON.

    Args:
        random: where chance comes from.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._order = 41_000

    def everyday(self, moods: dict[str, Mood]) -> Record:
        """One line about one order."""
        choose = self._random
        member = choose.choice([member for member in FLEET if member.instruments])
        self._order += 1
        fields: dict[str, Any] = {
            "order_id": f"R{self._order:08d}",
            "instrument": choose.choice(member.instruments),
            "quantity": choose.randint(1, 20),
        }
        if moods.get(member.id, Mood.WELL) not in _REACHABLE:
            text = f"order {fields['order_id']} held back: {member.id} cannot be reached"
            return Record(WARN, member.id, text, fields=fields)
        dice = choose.random()
        fields["latency_us"] = round(choose.lognormvariate(6.0, 0.6))
        if dice < 0.45:
            level, done = INFO, "accepted by"
        elif dice < 0.8:
            level, done = INFO, "filled at"
        elif dice < 0.985:
            level, done = DEBUG, "acknowledged by"
        else:
            level, done = ERROR, "refused by"
            fields["reason"] = "price outside of the daily limit"
        return Record(level, member.id, f"order {fields['order_id']} {done} {member.id}", fields=fields)


def _lost(mood: Mood, member: Member) -> tuple[str, Member, str]:
    level, text = _LOST[mood]
    return level, member, text


def _say(level: str, member: Member, text: str) -> Record:
    return Record(level, member.id, text)
