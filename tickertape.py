"""Tickertape's public names: what another service imports.

Example::

    from tickertape import Publisher, SystemLog

    async with Publisher("nats://127.0.0.1:4222") as publisher:
        await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))
"""

from contracts.events import (
    EventModel,
    GatewayRecovery,
    GatewayStatusChange,
    Status,
    SystemHealth,
    SystemLog,
)
from contracts.subjects import SubjectError, covers, escape, matches, unescape
from producers.publisher import Ack, InvalidEvent, Publisher, PublishError, PublishRejected

__all__ = [
    "Ack",
    "EventModel",
    "GatewayRecovery",
    "GatewayStatusChange",
    "InvalidEvent",
    "PublishError",
    "PublishRejected",
    "Publisher",
    "Status",
    "SubjectError",
    "SystemHealth",
    "SystemLog",
    "covers",
    "escape",
    "matches",
    "unescape",
]
