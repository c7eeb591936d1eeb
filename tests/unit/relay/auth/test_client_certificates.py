"""Grants of client certificates: rules, their wildcards, and files that are not valid."""

import asyncio
import errno
import itertools
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth import client_certificates as module
from tickertape.relay.auth.client_certificates import CertificateGrantsError, ClientCertificates
from tickertape.relay.auth.revocation_list import Revocations

from tests.support.patience import PATIENCE
from tests.support.servers.client_authority import ClientAuthority, der, fingerprint, replace


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> ClientAuthority:
    """Create an authority."""
    return ClientAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the file."""
    return tmp_path / "grants.json"


def rule(name: Any, *subjects: str, **grant: Any) -> dict[str, Any]:
    """Return a rule."""
    return {"name": name, "grant": {"subjects": list(subjects or ("log.>",)), **grant}}


def load(path: Path, *rules: Any) -> ClientCertificates:
    """Return the grants of rules."""
    replace(path, json.dumps(rules).encode())
    return ClientCertificates(path)


@pytest.mark.parametrize(
    ("name", "certified", "matches"),
    [
        ("cn:viewer", "cn:viewer", True),
        ("cn:viewer", "cn:Viewer", False),
        ("cn:viewer", "cn:viewer2", False),
        ("cn:viewer", "dns:viewer", False),
        ("dns:Viewer.example.com", "dns:vieweR.example.com", True),
        ("dns:*.example.com", "dns:a.example.com", True),
        ("dns:*.example.com", "dns:a.b.example.com", False),
        ("dns:*.example.com", "dns:example.com", False),
        ("dns:*.example.com", "dns:*.example.com", False),
        ("dns:*.example.com", "dns:aXexample.com", False),
        ("dns:*.example.com", "cn:a.example.com", False),
        ("email:ops@example.com", "email:ops@example.com", True),
        ("uri:spiffe://desk/ns/a/viewer", "uri:spiffe://desk/ns/a/viewer", True),
        ("uri:spiffe://desk/ns/*/viewer", "uri:spiffe://desk/ns/a-1/viewer", True),
        ("uri:spiffe://desk/ns/*/viewer", "uri:spiffe://desk/ns/a/b/viewer", False),
        ("uri:spiffe://desk/ns/*", "uri:spiffe://desk/ns/", False),
        ("uri:spiffe://desk/ns/*", "uri:spiffe://desk/ns/a?b", False),
        ("uri:spiffe://desk/ns/*", "uri:spiffe://DESK/ns/a", False),
        ("uri:spiffe://desk/*/a", "uri:spiffe://desk/../a", False),
        ("uri:spiffe://desk/*/a", "uri:spiffe://desk/..b/a", True),
    ],
)
def test_names_are_compared_whole(
    authority: ClientAuthority, path: Path, name: str, certified: str, matches: bool
) -> None:
    """A rule matches a whole name of its own kind; a wildcard stands for one label or segment only."""
    certificates = load(path, rule(name, level="WARN"))
    file = authority.issue(certified)
    if not matches:
        with pytest.raises(ProtocolError, match="no rule matches the client certificate") as caught:
            certificates.grant(der(file))
        assert caught.value.code is ErrorCode.FORBIDDEN
        return
    grant = certificates.grant(der(file))
    assert (grant.subjects, grant.level) == (("log.>",), "WARN")
    assert grant.subject == (certified.lower() if certified.startswith("dns") else certified)
    assert grant.certificate is not None
    assert grant.certificate.fingerprint == fingerprint(file).replace(":", "").lower()


def test_the_first_matching_rule_applies(authority: ClientAuthority, path: Path) -> None:
    """Of several matching rules, the first in the file applies, whatever the order of the names."""
    file = authority.issue("dns:b.example.com", "cn:b")
    rules = [
        rule("cn:b", "log.a.>"),
        rule("dns:*.example.com", "log.b.>"),
        rule("dns:b.example.com", "log.c.>"),
    ]
    for several in itertools.permutations(rules):
        assert list(load(path, *several).grant(der(file)).subjects) == several[0]["grant"]["subjects"]
    assert load(path, rule("cn:a"), *rules[1:]).grant(der(file)).subjects == ("log.b.>",)


def test_an_expired_certificate_is_rejected(authority: ClientAuthority, path: Path) -> None:
    """A certificate is checked each time, since TLS checks it only in a full handshake."""
    load(path, rule("cn:a"))
    now = time.time()
    certificates = ClientCertificates(path, wall=lambda: now)
    file = der(authority.issue("cn:a", seconds=600))
    assert certificates.grant(file).expires_at == pytest.approx(now + 600, abs=PATIENCE)
    now += 600 + PATIENCE
    with pytest.raises(ProtocolError, match="has expired; get a new one") as caught:
        certificates.grant(file)
    assert caught.value.code is ErrorCode.UNAUTHORIZED


def test_strange_certificates_are_rejected(authority: ClientAuthority, path: Path) -> None:
    """A certificate that cannot be parsed, or has no usable name, is rejected and not logged as it is."""
    certificates = load(path, rule("cn:b"))
    with pytest.raises(ProtocolError, match="cannot be read"):
        certificates.grant(b"0\x03\x02\x01\x01")
    for name in ("cn:b\x1b[31m", "cn:b\n", "cn:"):
        with pytest.raises(ProtocolError, match="with no name"):
            certificates.grant(der(authority.issue(name)))
    good = der(authority.issue("cn:b", "dns:abk.example.com"))
    lookalike = good.replace(b"abk.example", b"\xe2\x84\xaa.example")  # the lower case of a Kelvin sign is k
    with pytest.raises(ProtocolError, match="no rule matches"):
        load(path, rule("dns:k.example.com")).grant(lookalike)
    for old, new in (
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04"),  # version 5
        (b"\x0c\x01b", b"\x03\x01b"),  # a common name that is a bit string
        (b"abk.example", b"\xff\xff\xff.example"),
    ):
        assert old in good
        with pytest.raises(ProtocolError, match="cannot be read"):
            certificates.grant(good.replace(old, new))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not valid JSON"),
        (b"{}", "not a list of 1 to"),
        (b"[]", "not a list of 1 to"),
        (b"[5]", "rule 1 is not an object with exactly"),
        (b'[{"name": "cn:a"}]', "rule 1 is not an object with exactly"),
        (
            b'[{"name": "cn:a", "grant": {"subjects": ["a"]}, "deny": []}]',
            "rule 1 is not an object with exactly",
        ),
        (b'[{"name": "cn:a", "grant": {"subjects": ["a"], "deny": ["a"], "deny": []}}]', "a duplicate key"),
        (b"[" * 9 + b"]" * 9, "nested too deep"),
        ([rule("cn:a"), rule("cn:b", dney=["x"])], r"rule 2: grant.dney is unknown; known fields"),
        ([rule("cn:a", subjects=[])], "rule 1: grant.subjects is empty"),
        ([{"name": "cn:a", "grant": []}], "rule 1: grant is not an object"),
        *(
            ([rule(name)], "rule 1: name")
            for name in (
                *(
                    5,
                    "",
                    "a",
                    "cn",
                    "cn:",
                    "CN:a",
                    "ou:a",
                    "cn: a",
                    "cn:a\n",
                    "cn:" + "a" * 300,
                    "dns:des\u212a",
                ),
                *("cn:*", "email:*@a.b", "dns:*", "dns:*.*.a", "dns:a*.b", "uri:spiffe://a/b*", "uri:*"),
            )
        ),
        ([rule(f"cn:{number}") for number in range(1_001)], "not a list of 1 to 1000"),
        ([rule("dns:a.b"), rule("cn:x"), rule("dns:A.b")], "rule 3: name 'dns:a.b' has an earlier rule"),
        (
            [rule(f"dns:*.{number}.b") for number in range(101)],
            "rule 101: more than 100 names have a wildcard",
        ),
    ],
)
def test_an_invalid_file_is_rejected(path: Path, text: Any, problem: str) -> None:
    """A file with an unknown field, an ambiguous name, or anything else that is not valid is an error."""
    path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
    with pytest.raises(CertificateGrantsError, match=problem) as caught:
        ClientCertificates(path)
    assert str(path) in caught.value.message


def test_new_rules_apply_and_broken_ones_do_not(
    authority: ClientAuthority, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed file is loaded; a broken or missing one leaves the rules in force, with one log line each."""
    certificates = load(path, rule("cn:a"))
    file = authority.issue("cn:a")
    grant = certificates.grant(der(file))
    assert grant.certificate is not None
    assert not certificates.poll()
    assert certificates.is_current(grant.certificate)
    with caplog.at_level(logging.ERROR):
        for broken in (b"[", b'[{"name": "cn:a", "grant": {}}]', None):
            path.unlink() if broken is None else replace(path, broken)
            caplog.clear()
            assert not certificates.poll()
            assert not certificates.poll()
            assert len(caplog.messages) == 1, broken
            assert "the previous content stays in force: 1 rule" in caplog.messages[0]
            assert certificates.is_current(grant.certificate)
    replace(path, json.dumps([rule("cn:a", "log.>", deny=["log.debug.>"])]).encode())
    assert certificates.poll()
    assert not certificates.is_current(grant.certificate)
    assert certificates.grant(der(file)).deny == ("log.debug.>",)
    replace(path, json.dumps([rule("cn:b")]).encode())
    assert certificates.poll()
    with pytest.raises(ProtocolError, match="no rule matches"):
        certificates.grant(der(file))


def test_rules_written_in_place_are_loaded_once_stable(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A part of a file is no failure while it is written; the end of a failure is logged."""
    caplog.set_level(logging.INFO)
    certificates = load(path, rule("cn:a"))
    path.write_text("[")
    assert not certificates.poll()
    assert (certificates.valid, caplog.messages) == (True, [])
    path.write_text(json.dumps([rule("cn:a"), rule("cn:b")]))
    assert not certificates.poll()
    assert certificates.poll()
    assert (len(certificates), caplog.messages) == (2, [])
    for number in (1, 2):
        replace(path, b"[")
        assert not certificates.poll()
        assert not certificates.valid
        replace(path, json.dumps([rule("cn:a")]).encode())
        assert certificates.poll()
        assert [line.endswith("is valid again") for line in caplog.messages] == [False, True] * number


def test_a_slow_load_does_not_replace_newer_rules(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that has read an older file does not undo what a reload during it has loaded."""
    certificates = load(path, rule("cn:a"))
    parse, started, released = module._parse_rules, threading.Event(), threading.Event()

    def parse_slowly(*args: Any) -> Any:
        rules = parse(*args)
        if not started.is_set():
            started.set()
            assert released.wait(PATIENCE)
        return rules

    monkeypatch.setattr(module, "_parse_rules", parse_slowly)
    replace(path, json.dumps([rule("cn:a"), rule("cn:b")]).encode())
    poll = threading.Thread(target=certificates.poll)
    poll.start()
    assert started.wait(PATIENCE)
    replace(path, json.dumps([rule("cn:a"), rule("cn:b"), rule("cn:c")]).encode())
    reload = threading.Thread(target=lambda: asyncio.run(certificates.reload()))
    reload.start()
    reload.join(0.2)
    released.set()
    for thread in (poll, reload):
        thread.join(PATIENCE)
    assert len(certificates) == 3
    assert not certificates.poll()


def test_a_pipe_is_rejected(path: Path) -> None:
    """A pipe in place of the file is an error, since reading it would block the relay."""
    os.mkfifo(path)
    with pytest.raises(CertificateGrantsError, match="not a regular file"):
        ClientCertificates(path)


def test_a_file_that_becomes_readable_is_loaded(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that could not be opened is loaded as soon as it can, although it has not changed since."""
    certificates = load(path, rule("cn:a"))

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    replace(path, json.dumps([rule("cn:a"), rule("cn:b")]).encode())
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        for _ in range(3):
            assert not certificates.poll()
    assert len(caplog.records) == 1
    assert not certificates.valid
    assert certificates.poll()
    assert (len(certificates), certificates.valid) == (2, True)


def test_a_revoked_name_revokes_every_certificate_that_has_it(authority: ClientAuthority, path: Path) -> None:
    """A certificate is revoked by any of its names, not only by the one that a rule matches."""
    certificates = load(path, rule("cn:b"), rule("dns:*.example.com"))
    revoked = path.with_name("revoked")
    for entry, name in (("sub:dns:b.example.com", "dns:B.example.com"), ("sub:email:b@a", "email:b@a")):
        revoked.write_text(f"{entry}\n")
        revocations = Revocations(revoked)
        assert revocations.is_revoked(certificates.grant(der(authority.issue("cn:b", name))))
        assert not revocations.is_revoked(
            certificates.grant(der(authority.issue("cn:b", "dns:c.example.com")))
        )
