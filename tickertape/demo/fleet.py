"""Gateways of the demo: their ports, their failures, and the file that publishes their conditions.

Invariants:

1. Every failure is detected by one of the probes that ``gateways.yaml`` has for that gateway.
2. The file of conditions is replaced atomically: a reader sees the old or the new content, never a part.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tickertape.process.files import replace_text


class Kind(StrEnum):
    """Protocol of a port."""

    TCP = "tcp"
    HTTP = "http"
    WEBSOCKET = "websocket"


class Condition(StrEnum):
    """Current condition of a gateway."""

    HEALTHY = "healthy"
    SLOW = "slow"
    """Responds late: DEGRADED for a probe with ``degraded_above``."""
    FAILING = "failing"
    """Responds to health checks with an error."""
    HANGING = "hanging"
    """Accepts connections, then sends nothing."""
    DROPPING = "dropping"
    """Accepts connections, then closes them, as a CTP front does outside of its sessions."""
    REFUSING = "refusing"
    """Does not listen."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Kind of failure that a gateway may have.

    Attributes:
        condition: condition of the gateway during an episode.
        min_seconds: minimum duration of an episode, and of the recovery between two episodes.
        max_seconds: maximum duration of either.
        episodes: number of episodes; more than one is flapping.
    """

    condition: Condition
    min_seconds: float = 10.0
    max_seconds: float = 24.0
    episodes: int = 1


@dataclass(frozen=True, slots=True)
class DemoGateway:
    """Gateway of the fleet.

    Attributes:
        id: id in ``gateways.yaml`` and in the logs.
        kinds: protocol of each port.
        failures: failures that the gateway may have.
        instruments: instruments that the gateway trades, for the logs; empty for an internal service.
    """

    id: str
    kinds: tuple[Kind, ...]
    failures: tuple[Failure, ...]
    instruments: tuple[str, ...] = ()

    def port_names(self) -> tuple[str, ...]:
        """Return the names of the ports in the template of ``gateways.yaml``, in the order of ``kinds``."""
        return tuple(f"{self.id}_{kind}" for kind in self.kinds)


_REFUSES: Final = Failure(Condition.REFUSING)
_DROPS: Final = Failure(Condition.DROPPING)
_HANGS: Final = Failure(Condition.HANGING)
_FAILS: Final = Failure(Condition.FAILING)
_SLOW: Final = Failure(Condition.SLOW, 12.0, 26.0)
_FLAPS: Final = Failure(Condition.DROPPING, 5.0, 7.0, episodes=3)

_FUTURES: Final = ("rb2510", "IF2509", "cu2509", "au2512", "sc2510")
_SHANGHAI: Final = ("600519", "601318", "600036", "688981")
_SHENZHEN: Final = ("000001", "000858", "300750", "002594")

FLEET: Final = (
    DemoGateway("ctp_main_account", (Kind.TCP,), (_DROPS, _FLAPS), _FUTURES),
    DemoGateway("ctp_backup_account", (Kind.TCP,), (_REFUSES, _DROPS), _FUTURES),
    DemoGateway("ctp_md_front", (Kind.TCP,), (_DROPS,), _FUTURES),
    DemoGateway("femas_options", (Kind.TCP, Kind.HTTP), (_HANGS, _SLOW), ("IO2509-C-4000", "MO2509-P-6200")),
    DemoGateway("xtp_shanghai", (Kind.TCP,), (_REFUSES,), _SHANGHAI),
    DemoGateway("xtp_shenzhen", (Kind.TCP,), (_FLAPS,), _SHENZHEN),
    DemoGateway("ib_paper", (Kind.TCP,), (_REFUSES, _DROPS), ("AAPL", "SPY", "ES-Z5")),
    DemoGateway("fix_lme", (Kind.TCP,), (_DROPS,), ("CA-3M", "AH-3M", "ZS-3M")),
    DemoGateway("binance_spot", (Kind.WEBSOCKET,), (_FAILS, _SLOW), ("BTCUSDT", "ETHUSDT", "SOLUSDT")),
    DemoGateway("okx_perp", (Kind.WEBSOCKET,), (_HANGS, _REFUSES), ("BTC-USDT-SWAP", "ETH-USDT-SWAP")),
    DemoGateway("risk_engine", (Kind.HTTP,), (_SLOW, _FAILS)),
    DemoGateway("order_router", (Kind.HTTP,), (_SLOW, _HANGS)),
)


def write_conditions(path: Path, conditions: Mapping[str, Condition]) -> None:
    """Publish the condition of every gateway to the log service."""
    replace_text(path, json.dumps(conditions))


def read_conditions(path: Path) -> dict[str, Condition]:
    """Return the condition of every gateway; empty before the first ``write_conditions``."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return {gateway_id: Condition(condition) for gateway_id, condition in json.loads(text).items()}
