"""The gateways of the demo: who they are, how each can be reached, and what each may suffer from.

Invariants:

1. Every ailment shows in one of the probes that ``gateways.yaml`` has for that gateway.
2. The file of moods is replaced whole: a reader sees the old one or the new one, never a part.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Kind(StrEnum):
    """What listens on a port."""

    TCP = "tcp"
    HTTP = "http"
    WEBSOCKET = "websocket"


class Mood(StrEnum):
    """How a gateway behaves at the moment."""

    WELL = "well"
    SLOW = "slow"
    """Answers, but late: DEGRADED for a probe with ``degraded_above``."""
    FAILING = "failing"
    """Answers its health page with an error."""
    HANGING = "hanging"
    """Accepts, then says nothing."""
    DROPPING = "dropping"
    """Accepts, then hangs up, as a CTP front does outside its sessions."""
    REFUSING = "refusing"
    """Nothing listens."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """Something that a gateway may come down with.

    Attributes:
        least: seconds that it lasts at least.
        most: seconds that it lasts at most.
        spells: times that it comes back, with a short recovery between; more than one is flapping.
    """

    mood: Mood
    least: float = 10.0
    most: float = 24.0
    spells: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One gateway of the fleet.

    Attributes:
        kinds: one port for each.
        instruments: what is traded there, for the logs; none at a service of our own.
    """

    id: str
    kinds: tuple[Kind, ...]
    ailments: tuple[Ailment, ...]
    instruments: tuple[str, ...] = ()

    def port_names(self) -> tuple[str, ...]:
        """Names of its ports, in the order of ``kinds``, as in the template of ``gateways.yaml``."""
        return tuple(f"{self.id}_{kind}" for kind in self.kinds)


_REFUSES: Final = Ailment(Mood.REFUSING)
_DROPS: Final = Ailment(Mood.DROPPING)
_HANGS: Final = Ailment(Mood.HANGING)
_FAILS: Final = Ailment(Mood.FAILING)
_SLOW: Final = Ailment(Mood.SLOW, 12.0, 26.0)
_FLAPS: Final = Ailment(Mood.DROPPING, 5.0, 7.0, spells=3)

_FUTURES: Final = ("rb2510", "IF2509", "cu2509", "au2512", "sc2510")
_SHANGHAI: Final = ("600519", "601318", "600036", "688981")
_SHENZHEN: Final = ("000001", "000858", "300750", "002594")

FLEET: Final = (
    Member("ctp_main_account", (Kind.TCP,), (_DROPS, _FLAPS), _FUTURES),
    Member("ctp_backup_account", (Kind.TCP,), (_REFUSES, _DROPS), _FUTURES),
    Member("ctp_md_front", (Kind.TCP,), (_DROPS,), _FUTURES),
    Member("femas_options", (Kind.TCP, Kind.HTTP), (_HANGS, _SLOW), ("IO2509-C-4000", "MO2509-P-6200")),
    Member("xtp_shanghai", (Kind.TCP,), (_REFUSES,), _SHANGHAI),
    Member("xtp_shenzhen", (Kind.TCP,), (_FLAPS,), _SHENZHEN),
    Member("ib_paper", (Kind.TCP,), (_REFUSES, _DROPS), ("AAPL", "SPY", "ES-Z5")),
    Member("fix_lme", (Kind.TCP,), (_DROPS,), ("CA-3M", "AH-3M", "ZS-3M")),
    Member("binance_spot", (Kind.WEBSOCKET,), (_FAILS, _SLOW), ("BTCUSDT", "ETHUSDT", "SOLUSDT")),
    Member("okx_perp", (Kind.WEBSOCKET,), (_HANGS, _REFUSES), ("BTC-USDT-SWAP", "ETH-USDT-SWAP")),
    Member("risk_engine", (Kind.HTTP,), (_SLOW, _FAILS)),
    Member("order_router", (Kind.HTTP,), (_SLOW, _HANGS)),
)


def write_moods(path: Path, moods: Mapping[str, Mood]) -> None:
    """Say how every gateway is, for the service that logs about them."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(moods))
    beside.replace(path)


def read_moods(path: Path) -> dict[str, Mood]:
    """How every gateway is; empty while nobody has said so."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    return {name: Mood(mood) for name, mood in json.loads(text).items()}
