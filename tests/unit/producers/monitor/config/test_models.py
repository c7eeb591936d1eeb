"""The monitor's configuration file: resolution of its settings, and errors with line numbers."""

from pathlib import Path

import pytest
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.config.problems import MonitorFileError
from tickertape.producers.monitor.config.validate import check
from tickertape.producers.monitor.types import parse_address

GOOD = """\
defaults: {interval: 5s, timeout: 2s, unhealthy_after: 3, healthy_after: 2}
gateways:
  - id: ctp_main_account
    type: ctp
    group: futures
    interval: 1m
    probes:
      - {kind: tcp, address: "127.0.0.1:41205", hold: 3s}
      - {kind: http, url: "http://127.0.0.1:8000/health", status: 200, degraded_above: 500ms, interval: 10s}
"""


def write_config(folder: Path, text: str) -> Path:
    path = folder / "gateways.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load_errors(folder: Path, text: str) -> list[str]:
    """Load an invalid file, and return its errors as 'line: field: message'."""
    path = write_config(folder, text)
    with pytest.raises(MonitorFileError) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def test_the_most_specific_setting_applies(tmp_path: Path) -> None:
    """Settings of a probe override those of its gateway, which override the defaults."""
    config: MonitorConfig = load(write_config(tmp_path, GOOD))
    (gateway,) = config.resolve_gateways()
    tcp, http = gateway.checks
    assert (tcp.interval, http.interval) == (60.0, 10.0)
    assert (tcp.timeout, tcp.unhealthy_after, tcp.healthy_after) == (2.0, 3, 2)
    assert gateway.subject == "gateway.status.ctp.ctp_main_account"


def test_valid_addresses() -> None:
    """Host names, IPv4 and bracketed IPv6 addresses are valid."""
    assert parse_address("gw.example:1") == ("gw.example", 1)
    assert parse_address("[::1]:65535") == ("::1", 65535)


@pytest.mark.parametrize("text", ["a", "a:", ":1", "a:0", "a:65536", "a:x", "::1:80", "a:²"])
def test_invalid_addresses(text: str) -> None:
    """An address without a host or port, or with a port out of range, is rejected."""
    with pytest.raises(ValueError, match=r"host:port|out of range"):
        parse_address(text)


def test_all_errors_are_reported_with_their_lines(tmp_path: Path) -> None:
    """All errors of a file are reported together, each with its line."""
    text = GOOD.replace("3s}", "3}").replace("status: 200", "statsu: 200").replace("    type: ctp\n", "")
    assert load_errors(tmp_path, text) == [
        "3: gateways[0].type: is missing; add type: ctp",
        "7: gateways[0].probes[0].hold: 3 is not a duration; use a number with a unit (ms, s, m, h or d), "
        "such as 5s",
        "8: gateways[0].probes[1].statsu: is not a setting here; did you mean 'status'?",
    ]


def test_check_reports_hosts_that_do_not_resolve(tmp_path: Path) -> None:
    """A host name that does not resolve is reported with its line; IP addresses need no lookup."""
    assert check(write_config(tmp_path, GOOD)) == []
    bad = GOOD.replace('"127.0.0.1:41205"', '"no-such-host.invalid:41205"')
    (problem,) = check(write_config(tmp_path, bad))
    assert "gateways.yaml:8: gateways[0].probes[0].address: host 'no-such-host.invalid'" in problem.text
