"""Loading of complete configuration files of the monitor, and of malicious ones."""

import time
from pathlib import Path

import pytest
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.problems import MonitorFileError


def write_config(folder: Path, text: str) -> Path:
    path = folder / "gateways.yaml"
    path.write_text(text, encoding="utf-8")
    return path


FULL = """
connectivity: {interval: 10s, probes: [{kind: tcp, address: "1.1.1.1:443"}]}
defaults: {interval: 5s, dwell: 3s, flapping: {window: 10}}
exchanges:
  shfe:
    zone: Asia/Shanghai
    spans: ["09:00-10:15", "21:00-02:30"]
    holidays: [2026-10-01, 2026-10-03..2026-10-07]
    night_before_holiday: false
gateways:
  - id: ctp.main 上海
    type: ctp
    session: shfe
    recovery: {command: [systemctl, restart, ctp], per_hour: 2}
    probes:
      - {kind: tcp, address: "h:1", hold: 3s}
      - {kind: tls, address: "h:2", expires_within: 30d}
      - {kind: http, url: "http://h:3/", status: [200], json: {a: UP}, headers: {authorization: s3cret}}
      - {kind: websocket, url: "ws://h:4/", send: hello, expect: world}
      - {kind: fix, address: "h:5", sender_comp_id: me, target_comp_id: you, password_env: FIX_PASSWORD}
      - {kind: freshness, subject: "md.>", within: 3s, label: market data}
      - {kind: exec, command: [check, "-x"], timeout: 9s}
"""


def test_a_complete_file_is_loaded(tmp_path: Path) -> None:
    """Every probe kind and setting is loaded, and the most specific level of a setting applies."""
    config = load(write_config(tmp_path, FULL))
    gateway = config.resolve_gateways()[0]
    assert gateway.subject == "gateway.status.ctp.ctp=2Emain=20=E4=B8=8A=E6=B5=B7"
    names = [check.probe.name for check in gateway.checks]
    assert names == [
        "tcp h:1", "tls h:2", "http http://h:3/", "websocket ws://h:4/", "fix h:5", "market data",
        "exec check",
    ]  # fmt: skip
    assert gateway.sessions is not None
    assert len(gateway.sessions.holidays) == 6
    assert (gateway.dwell, gateway.flapping.window, gateway.interval) == (3.0, 10, 5.0)
    assert [check.timeout for check in gateway.checks] == [2.0] * 6 + [9.0]
    assert [check.interval for check in config.connectivity_checks()] == [10.0]
    assert "s3cret" not in repr(config)


def test_an_alias_bomb_is_rejected_quickly(tmp_path: Path) -> None:
    """Nested aliases that expand a few lines to billions of settings are rejected within seconds."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for number in range(1, 12):
        before, name = chr(96 + number), chr(97 + number)
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    began = time.process_time()
    with pytest.raises(MonitorFileError, match="aliases that expand to more than 500000 settings"):
        load(write_config(tmp_path, "\n".join(lines)))
    assert time.process_time() - began < 5
