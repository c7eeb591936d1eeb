"""Realistic log text that compresses as real logs do.

Random bytes would not compress at all, and padding would compress to nothing. A line resembles the output of
a trading program: a logger's name, a sentence, and values. IDs increase, sessions and hosts recur, prices
move slightly, durations vary; everything is the same in every run.
"""

import random
from functools import cache
from typing import Final

_LINES: Final = 4_093
"""Number of distinct lines: beyond a compressor's window, and prime, so that no other cycle coincides."""

_TEMPLATES: Final = (
    "[{logger}] order {order} accepted: account={account} symbol={symbol} side={side} volume={lots}"
    " price={price} session={session} latency_ms={ms}",
    "[{logger}] order {order} filled: account={account} symbol={symbol} side={side} volume={lots}"
    " price={price} trade={trade} session={session}",
    "[{logger}] order {order} rejected by the exchange: account={account} symbol={symbol} code={code}"
    " session={session} margin of the account is {price} short",
    "[{logger}] market data of {symbol} is late: delay_ms={ms} session={session} queued={lots}"
    " last_price={price} from {host}",
    "[{logger}] heartbeat answered by {host}: latency_ms={ms} session={session} sequence={trade}"
    " pending={lots}",
    "[{logger}] connection to {host} lost: reset by peer; reconnecting session={session} attempt={lots}"
    " backoff_ms={ms}",
    "[{logger}] query of positions returned {lots} rows: account={account} session={session} latency_ms={ms}"
    " request={trade}",
    "[{logger}] risk check of order {order} passed: account={account} symbol={symbol} exposure={price}"
    " rules={code} latency_ms={ms}",
)
_LOGGERS: Final = (
    "gateway.ctp.trade",
    "gateway.ctp.quote",
    "gateway.sopt.trade",
    "engine.risk",
    "engine.order",
)
_ACCOUNTS: Final = ("futures-main", "futures-07", "options-02", "stock-a", "stock-b", "hedge-11")
_SYMBOLS: Final = {
    "IF2509": 3_921.4,
    "IC2509": 5_804.2,
    "rb2510": 3_012.0,
    "cu2508": 78_340.0,
    "510300": 3.98,
}
_SESSIONS: Final = ("7f3a91c2", "19bd04e7", "c05e8a3d", "52e7f610", "e8a4d97b", "3b60c1f5")
_HOSTS: Final = ("180.168.146.187:10201", "180.168.146.187:10211", "218.202.237.33:10203", "10.0.4.17:41205")


def _line(chance: random.Random, number: int) -> str:
    symbol = chance.choice(list(_SYMBOLS))
    return chance.choice(_TEMPLATES).format(
        logger=chance.choice(_LOGGERS),
        order=250_624_000_000 + number * 3,
        account=chance.choice(_ACCOUNTS),
        symbol=symbol,
        side=chance.choice(("buy", "sell")),
        lots=chance.randrange(1, 60),
        price=f"{_SYMBOLS[symbol] * chance.uniform(0.99, 1.01):.2f}",
        trade=8_310_000 + number * 2,
        ms=chance.randrange(1, 900),
        code=chance.choice((30, 31, 42, 50)),
        session=chance.choice(_SESSIONS),
        host=chance.choice(_HOSTS),
    )


@cache
def lines(minimum: int) -> tuple[bytes, ...]:
    """Return texts of at least ``minimum`` bytes each, for the caller to truncate."""
    chance = random.Random(20_250_624)
    found = []
    for number in range(_LINES):
        text = _line(chance, number)
        while len(text) < minimum:
            text += "; " + _line(chance, number)
        found.append(text.encode())
    return tuple(found)
