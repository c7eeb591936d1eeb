"""Tickertape's public names: what another service imports.

Example::

    from tickertape import Publisher, SystemLog

    async with Publisher("nats://127.0.0.1:4222") as publisher:
        await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

``tickertape_app`` mounts the feed in a FastAPI or Starlette application; ``relay/asgi.py`` shows how.
"""

from typing import TYPE_CHECKING, Any

from contracts.access import Access, AccessError
from contracts.events import (
    EventModel,
    GatewayRecovery,
    GatewayStatusChange,
    Status,
    SystemHealth,
    SystemLog,
)
from contracts.subjects import SubjectError, covers, escape, matches, unescape
from producers.errors import PublishDropped, PublisherFull
from producers.logging import TickertapeHandler
from producers.publisher import Ack, InvalidEvent, Publisher, PublishError, PublishRejected
from producers.sync import SyncPublisher

if TYPE_CHECKING:
    from relay.asgi import TickertapeApp, tickertape_app

__all__ = [
    "Access",
    "AccessError",
    "Ack",
    "EventModel",
    "GatewayRecovery",
    "GatewayStatusChange",
    "InvalidEvent",
    "PublishDropped",
    "PublishError",
    "PublishRejected",
    "Publisher",
    "PublisherFull",
    "Status",
    "SubjectError",
    "SyncPublisher",
    "SystemHealth",
    "SystemLog",
    "TickertapeApp",
    "TickertapeHandler",
    "covers",
    "escape",
    "matches",
    "tickertape_app",
    "unescape",
]


def __getattr__(name: str) -> Any:
    # The relay takes as long to import as all the rest does twice; a producer needs nothing of it.
    if name in ("TickertapeApp", "tickertape_app"):
        from relay import asgi

        return getattr(asgi, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
