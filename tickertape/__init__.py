"""Public API of Tickertape for other services.

Example::

    from tickertape import Publisher, SystemLog

    async with Publisher("nats://127.0.0.1:4222") as publisher:
        await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

Every exception of Tickertape is a ``TickertapeError``. ``InvalidEvent`` and ``PublishError`` (with its
subclasses ``PublishRejected``, ``PublishDenied``, ``PublishDropped`` and ``PublisherFull``) concern one
event. An ``OperatorError`` has a ``message`` and a ``hint``: it is a ``ConfigurationError`` if a setting,
file or key cannot be used, and a ``ConnectError`` if NATS cannot be reached. ``on_down`` receives a
``ConnectFailure``.

``tickertape_app`` mounts the feed in a FastAPI or Starlette application; ``relay/asgi/app.py`` shows how.

Names are imported lazily, on first use, so that ``import tickertape`` is cheap and a producer does not need
the dependencies of the relay.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tickertape.contracts.events import (
        EventModel,
        GatewayRecovery,
        GatewayStatusChange,
        Status,
        SystemHealth,
        SystemLog,
    )
    from tickertape.contracts.subjects import SubjectError, covers, escape, matches, unescape
    from tickertape.errors import ConfigurationError, OperatorError, TickertapeError
    from tickertape.nats.connect_errors import ConnectError, ConnectFailure, ConnectFailureKind
    from tickertape.nats.credentials import Access, AccessError
    from tickertape.producers.sdk.errors import PublishDropped, PublisherFull
    from tickertape.producers.sdk.logging_handler import TickertapeHandler
    from tickertape.producers.sdk.publisher import (
        Ack,
        InvalidEvent,
        PublishDenied,
        Publisher,
        PublishError,
        PublishRejected,
    )
    from tickertape.producers.sdk.sync_publisher import SyncPublisher
    from tickertape.relay.asgi.app import TickertapeApp, tickertape_app

_MODULES: Final = {
    "contracts.events": (
        "EventModel",
        "GatewayRecovery",
        "GatewayStatusChange",
        "Status",
        "SystemHealth",
        "SystemLog",
    ),
    "contracts.subjects": ("SubjectError", "covers", "escape", "matches", "unescape"),
    "errors": ("ConfigurationError", "OperatorError", "TickertapeError"),
    "nats.connect_errors": ("ConnectError", "ConnectFailure", "ConnectFailureKind"),
    "nats.credentials": ("Access", "AccessError"),
    "producers.sdk.errors": ("PublishDropped", "PublisherFull"),
    "producers.sdk.logging_handler": ("TickertapeHandler",),
    "producers.sdk.publisher": (
        "Ack",
        "InvalidEvent",
        "PublishDenied",
        "PublishError",
        "PublishRejected",
        "Publisher",
    ),
    "producers.sdk.sync_publisher": ("SyncPublisher",),
    "relay.asgi.app": ("TickertapeApp", "tickertape_app"),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Access",
    "AccessError",
    "Ack",
    "ConfigurationError",
    "ConnectError",
    "ConnectFailure",
    "ConnectFailureKind",
    "EventModel",
    "GatewayRecovery",
    "GatewayStatusChange",
    "InvalidEvent",
    "OperatorError",
    "PublishDenied",
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
    "TickertapeError",
    "TickertapeHandler",
    "covers",
    "escape",
    "matches",
    "tickertape_app",
    "unescape",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if not module.startswith("relay.") or (error.name or "").startswith(f"{__name__}."):
            raise
        raise ImportError(
            f"{name} needs {error.name}, which is not installed; pip install 'tickertape[relay]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List all public names, including those not imported yet."""
    return sorted({*globals(), *__all__})
