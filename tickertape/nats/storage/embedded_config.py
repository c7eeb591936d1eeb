"""Configuration file of the embedded nats-server, and what programs read of the one of its last start."""

import re
from pathlib import Path
from typing import Final

from tickertape.net.loopback import LOOPBACK
from tickertape.process.files import replace_text
from tickertape.urls import host_port

SERVER_NAME: Final = "tickertape"
"""Name of the server, which distinguishes an embedded server from any other."""

# nats-py parses ack subjects by position; the newer format would stop a client silently.
_CONFIG: Final = """\
server_name: {name}
host: "{host}"
port: {port}
http: "{monitoring}"
jetstream {{ max_file_store: {limit} }}
logfile_size_limit: 16MB
logfile_max_num: 2
feature_flags {{ js_ack_fc_v2: false }}
"""

_MONITORING: Final = re.compile(r'^http: "([^"]+)"', re.MULTILINE)
_LIMIT: Final = re.compile(r"^\s*jetstream \{.*max_file_store: (\d+)", re.MULTILINE)


def config_path(data_dir: Path) -> Path:
    """Return the path of the configuration file in a data directory."""
    return data_dir / "nats.conf"


def write_config(data_dir: Path, port: int, monitoring_port: int, limit: int) -> None:
    """Write the configuration file.

    Args:
        data_dir: directory of the server's data.
        port: port for clients, on loopback.
        monitoring_port: port for monitoring, on loopback.
        limit: ``max_file_store`` of the server.

    Raises:
        OSError: the file cannot be written.
    """
    monitoring = host_port(LOOPBACK, monitoring_port)
    text = _CONFIG.format(name=SERVER_NAME, host=LOOPBACK, port=port, monitoring=monitoring, limit=limit)
    replace_text(config_path(data_dir), text)


def find_monitoring_url(data_dir: Path) -> str | None:
    """Return the address of the monitoring port that the last embedded server in a directory used, if any."""
    try:
        match = _MONITORING.search(_read(data_dir))
    except OSError:
        return None
    return None if match is None else f"http://{match[1]}"


def find_limit(data_dir: Path) -> int:
    """Return ``max_file_store`` of the last embedded server in a directory; 0 if there was none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        match = _LIMIT.search(_read(data_dir))
    except FileNotFoundError:
        return 0
    return 0 if match is None else int(match[1])


def _read(data_dir: Path) -> str:
    return config_path(data_dir).read_text(encoding="utf-8", errors="replace")


__all__ = ["SERVER_NAME", "config_path", "find_limit", "find_monitoring_url", "write_config"]
