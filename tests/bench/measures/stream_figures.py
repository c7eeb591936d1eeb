"""Figures of the HTTP streams."""

from tests.bench.run import Row

MIN_SHARE = 0.9
"""Minimum deliveries per core-second, as a share of those of the WebSocket in the same run."""


def versus_websocket(rows: list[Row]) -> tuple[str, bool] | None:
    """Return how the streams compare to the WebSocket, the first row, and whether that is enough."""
    if len(rows) < 2 or not all(row.per_core for row in rows):
        return None
    websocket, *streams = rows
    shares = [row.per_core / websocket.per_core for row in streams]
    found = ", ".join(f"{row.target} {share:.2f} x" for row, share in zip(streams, shares, strict=True))
    return found, min(shares) >= MIN_SHARE
