"""Formatting of events as terminal lines.

Invariant: text from producers cannot control the terminal.
"""

from typing import Any, Final

import orjson
from rich.text import Text

from tickertape.process.terminal import LEVEL_STYLES
from tickertape.text import printable

_STATUS_STYLES: Final = {
    "HEALTHY": "green",
    "DEGRADED": "yellow",
    "RECOVERING": "yellow",
    "UNHEALTHY": "bold red",
}


def format_event(item: dict[str, Any]) -> Text:
    """Return an event as one styled line.

    Args:
        item: ``subject``, ``seq`` and ``event``, as the relay sends them.
    """
    event = item["event"]
    line = Text(printable(str(event.get("timestamp", "")))[11:23] + " ", "dim")
    kind = event.get("event_type")
    if kind == "system_log":
        level = str(event["level"])
        line.append(f"{level:<8} ", LEVEL_STYLES.get(level, ""))
        line.append(printable(event["source"]) + "  ", "dim")
        line.append(printable(event["message"]))
    elif kind == "gateway_status_change":
        status = str(event["current_status"])
        line.append("STATUS   ", "bold")
        line.append(f"{printable(event['gateway_type'])}/{printable(event['gateway_id'])}  ")
        line.append(f"{event['previous_status']} -> ", "dim")
        line.append(status, _STATUS_STYLES.get(status, ""))
    elif kind == "system_health":
        status = str(event["status"])
        line.append("HEALTH   ", "bold")
        line.append(printable(item["subject"].removeprefix("system.health.")) + "  ")
        line.append(status, _STATUS_STYLES.get(status, ""))
    else:
        line.append("EVENT    ", "bold")
        line.append(printable(item["subject"]) + "  " + printable(orjson.dumps(event).decode()))
    return line
