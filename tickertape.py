"""Tickertape's public names: what another service imports.

Example::

    from tickertape import Publisher, SystemLog

    async with Publisher("nats://127.0.0.1:4222") as publisher:
        await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))
"""

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
    "TickertapeHandler",
    "covers",
    "escape",
    "matches",
    "unescape",
]
