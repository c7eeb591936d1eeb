"""Publish CloudEvents 1.0 as log events: one structured CloudEvent in JSON per line of standard input.

| CloudEvent | log event |
| --- | --- |
| ``severitytext``, else ``severitynumber`` (as in OpenTelemetry), else INFO | ``level`` |
| ``source`` without what precedes its last slash | ``source`` |
| ``data.message``, else ``data`` if it is a string, else ``type`` | ``message`` |
| ``time``, else the time at which it is read | ``timestamp`` |
| ``source`` and ``id``, which identify a CloudEvent | message id; a repeated one is stored once |
| every attribute, and ``data`` | ``metadata.cloudevent`` |
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from tickertape import SyncPublisher, SystemLog, TickertapeError

SEVERITIES = ((21, "CRITICAL"), (17, "ERROR"), (13, "WARN"), (9, "INFO"), (1, "DEBUG"))
"""Lowest severity number of each level."""

SPELLINGS = {"TRACE": "DEBUG", "WARNING": "WARN", "FATAL": "CRITICAL"}


def level_of(event: Mapping[str, Any]) -> str:
    """Return the level of a CloudEvent with the severity extension; INFO without it."""
    text = str(event.get("severitytext", "")).upper()
    if text:
        return SPELLINGS.get(text, text)
    number = event.get("severitynumber", 9)
    return next((level for lowest, level in SEVERITIES if number >= lowest), "INFO")


def to_log(event: Mapping[str, Any]) -> tuple[SystemLog, str]:
    """Return the log event of a CloudEvent, and its message id."""
    data = event.get("data")
    text = data.get("message") if isinstance(data, dict) else data
    fields: dict[str, Any] = {
        "level": level_of(event),
        "source": event["source"].rstrip("/").rpartition("/")[2],
        "message": text if isinstance(text, str) else event["type"],
        "metadata": {"cloudevent": dict(event)},
    }
    if "time" in event:
        fields["timestamp"] = event["time"]
    identity = json.dumps([event["source"], event["id"]])
    return SystemLog(**fields), hashlib.sha256(identity.encode()).hexdigest()


def main() -> int:
    """Publish standard input; return 1 if a line was not published, which standard error explains."""
    code = 0
    with SyncPublisher(os.environ.get("NATS_URL", "nats://127.0.0.1:4222")) as publisher:
        for number, line in enumerate(sys.stdin, 1):
            try:
                log, msg_id = to_log(json.loads(line))
                publisher.publish(log, msg_id=msg_id)
            except (TickertapeError, KeyError, TypeError, ValueError, AttributeError) as error:
                print(f"line {number}: {type(error).__name__}: {error}", file=sys.stderr)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
