"""Filter of gateways, compiled from the patterns of a client.

A page tests each of up to 100 000 gateways, and a filter may have hundreds of patterns.
"""

from collections.abc import Iterable
from typing import Final

from tickertape.contracts.subjects import SubjectError, unescape
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.timeline.changes import GatewayKey

_FIXED: Final = 2
"""Number of tokens of a gateway's subject before its type and id."""


class _Patterns:
    """Gateways that any of some patterns matches, on subjects of one kind."""

    __slots__ = ("_every", "_gateways", "_ids", "_types")

    def __init__(self, patterns: Iterable[str], prefix: str) -> None:
        self._every = False
        self._types: set[str] = set()
        self._ids: set[str] = set()
        self._gateways: set[GatewayKey] = set()
        for pattern in patterns:
            self._add(pattern.split("."), prefix.split(".")[:_FIXED])

    def _add(self, tokens: list[str], fixed: list[str]) -> None:
        if tokens[-1] == ">":
            # It matches one token or more, of which a subject has as many as it needs.
            tokens[-1:] = ["*"] * max(1, _FIXED + 3 - len(tokens))
        if len(tokens) != _FIXED + 2 or any(
            token not in ("*", expected) for token, expected in zip(tokens, fixed, strict=False)
        ):
            return
        try:
            gateway_type, gateway_id = (None if one == "*" else unescape(one) for one in tokens[_FIXED:])
        except SubjectError:
            return  # no gateway has such a subject
        if gateway_type is not None and gateway_id is not None:
            self._gateways.add(GatewayKey(gateway_type, gateway_id))
        elif gateway_type is not None:
            self._types.add(gateway_type)
        elif gateway_id is not None:
            self._ids.add(gateway_id)
        else:
            self._every = True

    def match(self, gateway: GatewayKey) -> bool:
        """Return whether a pattern matches the subject of a gateway."""
        return (
            self._every or gateway.type in self._types or gateway.id in self._ids or gateway in self._gateways
        )


class GatewayFilter:
    """Filter of gateways, which takes the same time for any number of patterns.

    Args:
        base: filter of the subjects; its level does not matter, as these name none.
        prefix: ``STATUS_PREFIX`` or ``RECOVERY_PREFIX``.
    """

    __slots__ = ("_allowed", "_denied")

    def __init__(self, base: Filter, prefix: str) -> None:
        self._allowed = _Patterns(base.subjects, prefix)
        self._denied = _Patterns(base.deny, prefix)

    def allows(self, gateway: GatewayKey) -> bool:
        """Return whether the filter matches the subject of a gateway."""
        return self._allowed.match(gateway) and not self._denied.match(gateway)
