"""Limits per client address: connections, and the rate of connections and requests.

Invariant: an address stands for one client, so IPv6 addresses are counted by their /64; exempt addresses,
such as those of proxies, are counted but never limited.
"""

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from tickertape.relay.core.limit_counters import LimitCounters

_ADDRESS: Final = "@"
"""Prefix of the counter keys of addresses."""


class AddressLimits:
    """Limits per address, on counters that other limits share.

    Args:
        connections: maximum connections from one address; 0 means no limit.
        rate: maximum new connections and requests per second from one address; 0 means no limit.
        exempt: returns whether the limits do not apply to an address.
        counters: limit counters.

    Attributes:
        is_exempt: the argument ``exempt``.
    """

    def __init__(
        self, connections: int, rate: float, exempt: Callable[[str], bool], counters: LimitCounters
    ) -> None:
        self.is_exempt = exempt
        self._connections = connections
        self._rate = rate
        self._counters = counters

    def __repr__(self) -> str:
        return f"AddressLimits({self._connections} connections, {self._rate:g} per second)"

    def key(self, address: str) -> str:
        """Return the key to count an address under: for IPv6 the /64, which one client controls."""
        if ":" not in address or self.is_exempt(address):
            return address
        try:
            parsed = IPv6Address(address.partition("%")[0])
        except ValueError:
            return address
        # A dual-stack socket reports all IPv4 clients in this form; a single /64 contains them.
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"

    def acquire(self, key: str) -> bool:
        """Count a connection of an address; return False if its connection limit is reached."""
        return self._counters.acquire(_ADDRESS + key, 0 if self.is_exempt(key) else self._connections)

    def release(self, key: str) -> None:
        """Stop counting a connection of an address."""
        self._counters.release(_ADDRESS + key)

    def spend(self, key: str, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Charge the rate of an address; return False if it is exceeded.

        Args:
            key: address.
            cost: number of connections or requests.
            now: time in seconds.
            allow_debt: whether to charge it even if the rate is exceeded.
        """
        if not self._rate or self.is_exempt(key):
            return True
        return self._counters.spend(_ADDRESS + key, self._rate, cost, now, allow_debt=allow_debt)

    def prune(self, now: float) -> None:
        """Forget addresses with full token buckets, least recently used first."""
        self._counters.prune(self._rate, now)
