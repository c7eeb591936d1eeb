"""Settings of FIX probes, and what one does without a peer; test_quickfixj.py has a real one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.problems import MonitorFileError
from tickertape.producers.monitor.config.validate import find_warnings
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import CannotProbe, ProbeContext, run
from tickertape.producers.monitor.probes.fix import FixProbe
from tickertape.producers.monitor.probes.fix.session import SequenceTooLow, rejection

from tests.support.patience import PATIENCE


def fix(**settings: Any) -> FixProbe:
    """Return a probe of an address where nothing listens."""
    required = {"kind": "fix", "address": "127.0.0.1:1", "sender_comp_id": "ME", "target_comp_id": "THEM"}
    return FixProbe.model_validate({**required, **settings})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"begin_string": "FIX.4.2", "username": "u"}, "FIX.4.2 has no username and password"),
        ({"begin_string": "FIX.4.0", "password_file": "/x"}, "FIX.4.0 has no username and password"),
        ({"begin_string": "FIX.4.0", "reset": True}, "FIX.4.0 has no ResetSeqNumFlag"),
        ({"reset": True, "adopt": True}, "exclude each other"),
        ({"default_appl_ver_id": "FIX.5.0"}, "'default_appl_ver_id' is for FIXT.1.1"),
        ({"begin_string": "FIXT.1.1", "default_appl_ver_id": "FIX.6.0"}, "unknown version 'FIX.6.0'"),
        ({"begin_string": "FIX.5.0"}, "FIXT.1.1"),
        ({"logon_fields": {34: 7}}, "contains tag 34, which the probe sets itself"),
        ({"logon_fields": {141: "Y"}}, "contains tag 141"),
        ({"username": "u", "logon_fields": {553: "v"}}, "contains tag 553, which has a setting"),
        ({"logon_fields": {"text": "x"}}, "valid integer"),
        ({"logon_fields": {9001: "a\x0110=000"}}, "has a control character"),
        ({"logon_fields": {9001: True}}, "must be text"),
        ({"sender_comp_id": ""}, "is empty"),
        ({"sender_comp_id": {}}, "needs a different comp id for each monitor"),
        ({"sender_comp_id": {"m1": "A", "m2": "A"}}, "needs a different comp id for each monitor"),
        ({"target_comp_id": "A\x01"}, "has a control character"),
    ],
)
def test_wrong_settings_are_rejected(settings: dict[str, Any], problem: str) -> None:
    """What a version does not have, what the probe sets itself, and ambiguous settings are errors."""
    with pytest.raises(ValidationError) as caught:
        fix(**settings)
    assert problem in str(caught.value)


def test_settings_that_are_accepted() -> None:
    """Tags and comp ids may be numbers in the file, and earlier versions may have a password."""
    probe = fix(begin_string="FIX.4.2", sender_comp_id=7, logon_fields={553: "u", "9001": 5})
    assert (probe.sender_comp_id, probe.logon_fields) == ("7", {553: "u", 9001: "5"})
    assert "logon_fields" not in repr(probe)


@pytest.mark.parametrize("option", ["reset", "adopt"])
def test_options_that_change_the_session_of_the_peer_have_a_warning(option: str) -> None:
    """A monitor and ``check`` warn about options with which a probe may harm another program."""
    warning = fix(**{option: True}).warning
    assert warning is not None
    assert warning.startswith(f"'{option}' ")
    assert fix().warning is None
    assert "skip_verify" in str(fix(tls=True, skip_verify=True).warning)


def test_an_interval_that_uses_up_the_logons_has_a_warning(tmp_path: Path) -> None:
    """After four logons in twenty seconds the gateway would keep its status for the rest of the hour."""
    probe = "kind: fix, address: '127.0.0.1:1', sender_comp_id: A, target_comp_id: B"
    path = tmp_path / "gateways.yaml"
    found = []
    for more in ("", ", interval: 15m", ", interval: 1m, max_logons_per_hour: 60"):
        path.write_text(f"gateways:\n  - id: a\n    type: t\n    probes:\n      - {{{probe}{more}}}\n")
        found += [str(problem) for problem in find_warnings(path)]
    assert found == [
        f"{path}:5: gateways[0].probes[0]: 4 logons per hour are used up after 20 s with this interval, and "
        "the status is kept until the hour is over; set 'interval: 15m' for this probe"
    ]


def probe_once(probe: FixProbe, context: ProbeContext) -> Result | None:
    return asyncio.run(run(Check(probe, 5.0, PATIENCE, 3, 2), context))


def test_each_monitor_has_its_own_comp_id(tmp_path: Path) -> None:
    """A monitor uses the comp id under its own id; without one it has no verdict, and connects to nothing."""
    context = ProbeContext(monitor="m2", folder=tmp_path)
    found = probe_once(fix(sender_comp_id={"m1": "A", "m2": "B"}), context)
    assert found == Result(Outcome.FAILED, "connection refused")
    assert [path.name for path in tmp_path.glob("*.json")] == ["B:THEM@127.0.0.1:1.json"]
    with pytest.raises(CannotProbe, match=r"'sender_comp_id' has no entry for this monitor, 'm2'"):
        probe_once(fix(sender_comp_id={"m1": "A"}), context)


def test_without_a_place_for_its_numbers_a_probe_has_no_verdict(tmp_path: Path) -> None:
    """A monitor that cannot keep its numbers says so, and does not log on."""
    (tmp_path / "file").touch()
    with pytest.raises(CannotProbe, match="--fix-state-dir"):
        probe_once(fix(), ProbeContext(folder=tmp_path / "file"))


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("sender_comp_id: A", "sender_comp_id: A", "A to T at h:1"),
        ("sender_comp_id: A", "sender_comp_id: {m1: B, m2: A}", "A to T at h:1"),
        ("sender_comp_id: {m1: A}", "sender_comp_id: {m2: A}", "A to T at h:1"),
        ("sender_comp_id: A", "sender_comp_id: B", None),
        ("sender_comp_id: A", "sender_comp_id: A, address: 'h:2'", None),
    ],
)
def test_two_probes_do_not_share_a_session(
    tmp_path: Path, first: str, second: str, shared: str | None
) -> None:
    """A file in which two gateways log on with the same comp ids at the same address is rejected."""
    path = tmp_path / "gateways.yaml"
    text = "gateways:\n"
    for name, settings in (("a", first), ("b", second)):
        address = "" if "address" in settings else ", address: 'H:1'" if name == "b" else ", address: 'h:1'"
        text += f"  - id: {name}\n    type: t\n    probes:\n"
        text += f"      - {{kind: fix, target_comp_id: T, {settings}{address}}}\n"
    path.write_text(text, encoding="utf-8")
    if shared is None:
        load(path)
        return
    with pytest.raises(MonitorFileError) as caught:
        load(path)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}:9: gateways[1].probes[0].address: the probe on line 5 uses {shared} as well; "
        "give each a comp id of its own"
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({58: "MsgSeqNum too low, expecting 301 but received 1"}, 301),
        ({58: "Sequence number is too low: received 1, expected: 42"}, 42),
        ({58: "SEQNUM TOO LOW"}, None),
        ({1409: "9"}, None),
        ({1409: "9", 58: "Expected=7"}, 7),
        ({58: "MsgSeqNum too low, expecting 1 but received 1"}, False),
        ({58: "MsgSeqNum too low, expecting 99999999999 but received 1"}, False),
        ({58: "credit too low"}, False),
        ({58: "expecting 5 more minutes of maintenance"}, False),
        ({}, False),
    ],
)
def test_a_number_that_is_too_low_is_recognized(fields: dict[int, str], expected: int | bool | None) -> None:
    """Engines word it differently, and a few do not tell the number that they expect."""
    error = rejection(fields, 1)
    found = error.expected if isinstance(error, SequenceTooLow) else False
    assert found == expected
    assert not isinstance(rejection(fields, None), SequenceTooLow)
