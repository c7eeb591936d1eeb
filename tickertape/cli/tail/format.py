"""An event as a line of the terminal.

Invariant: nothing that a producer wrote can steer the terminal.
"""

from typing import Any, Final

import orjson
from rich.text import Text

_LEVEL_STYLES: Final = {
    "DEBUG": "dim",
    "INFO": "cyan",
    "WARN": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold white on red",
}
_STATUS_STYLES: Final = {
    "HEALTHY": "green",
    "DEGRADED": "yellow",
    "RECOVERING": "yellow",
    "UNHEALTHY": "bold red",
}


def event_line(item: dict[str, Any]) -> Text:
    """The line of an event.

    Args:
        item: ``subject``, ``seq`` and ``event``, as the relay sends them.
    """
    event = item["event"]
    line = Text(plain(str(event.get("timestamp", "")))[11:23] + " ", "dim")
    kind = event.get("event_type")
    if kind == "system_log":
        level = str(event["level"])
        line.append(f"{level:<8} ", _LEVEL_STYLES.get(level, ""))
        line.append(plain(event["source"]) + "  ", "dim")
        line.append(plain(event["message"]))
    elif kind == "gateway_status_change":
        status = str(event["current_status"])
        line.append("STATUS   ", "bold")
        line.append(f"{plain(event['gateway_type'])}/{plain(event['gateway_id'])}  ")
        line.append(f"{event['previous_status']} -> ", "dim")
        line.append(status, _STATUS_STYLES.get(status, ""))
    elif kind == "system_health":
        status = str(event["status"])
        line.append("HEALTH   ", "bold")
        line.append(plain(item["subject"].removeprefix("system.health.")) + "  ")
        line.append(status, _STATUS_STYLES.get(status, ""))
    else:
        line.append("EVENT    ", "bold")
        line.append(plain(item["subject"]) + "  " + plain(orjson.dumps(event).decode()))
    return line


def plain(text: str) -> str:
    """Text that cannot steer the terminal: control characters become the sign for what is left out."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
