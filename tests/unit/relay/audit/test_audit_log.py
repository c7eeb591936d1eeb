"""The audit log of a relay without NATS: what it counts, and what it keeps."""

import orjson
import pytest
from pydantic import TypeAdapter
from tickertape.contracts.audit import Record, Reloaded, record_subject
from tickertape.relay.audit import audit_log
from tickertape.relay.audit.audit_log import AuditLog
from tickertape.relay.core.grants import ClientCertificate, Grant

from tickertape.names import Names

RECORD: TypeAdapter[Record] = TypeAdapter(Record)
ADDRESSES = [f"10.0.{number // 250}.{number % 250}" for number in range(5_000)]


class Stage:
    """An audit log with a clock that a test sets, and everything that it would store."""

    def __init__(self, prefix: str = "") -> None:
        self.now = 1_700_000_000.0
        self.log = AuditLog(Names(prefix), "desk/0", lambda: self.now)

    def records(self) -> list[Record]:
        """Return the records that wait for NATS."""
        return [RECORD.validate_json(queued.data) for queued in self.log.queued()]


def test_rejections_are_counted_by_client_and_reason() -> None:
    """A record counts what one client was rejected for in one window, and names the time of the first."""
    stage = Stage()
    for _ in range(1_000):
        stage.log.count_rejection("signature", "10.0.0.1")
        stage.now += 0.001
    stage.log.count_rejection("expired", "10.0.0.1")
    stage.log.count_rejection("signature", "10.0.0.2")
    stage.now += audit_log.WINDOW
    stage.log.tick()
    stage.log.tick()
    found = {
        (record.reason, record.address): (record.count, record.timestamp)
        for record in stage.records()
        if record.record == "rejected"
    }
    assert found["signature", "10.0.0.1"] == (1_000, "2023-11-14T22:13:20.000Z")
    assert found["expired", "10.0.0.1"][0] == found["signature", "10.0.0.2"][0] == 1
    assert len(found) == len(stage.records()) == 3


def test_a_crowd_of_clients_costs_a_bounded_number_of_records() -> None:
    """However many addresses are rejected, a window has a bounded number of records, whose sum is exact."""
    stage = Stage()
    for address in ADDRESSES:
        stage.log.count_rejection("malformed", address)
    stage.now += audit_log.WINDOW
    stage.log.tick()
    counts = [record.count for record in stage.records() if record.record == "rejected"]
    assert len(counts) == audit_log.MAX_KEYS + 1
    assert sum(counts) == len(ADDRESSES)


def test_a_crowd_of_readers_loses_no_record_in_silence() -> None:
    """Reads beyond the bound count as lost."""
    stage = Stage()
    for address in ADDRESSES:
        stage.log.count_read(Grant(subject="alice"), address, None)
        stage.log.count_read(Grant(subject="alice"), address, None)
    stage.now += audit_log.WINDOW
    stage.log.tick()
    counts = [record.count for record in stage.records() if record.record == "history_read"]
    assert counts == [2] * audit_log.MAX_KEYS
    assert stage.log.lost == 2 * (len(ADDRESSES) - audit_log.MAX_KEYS)


def test_records_without_nats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While NATS does not accept records, memory is bounded, and what does not fit is counted."""
    monkeypatch.setattr(audit_log, "MAX_QUEUED_BYTES", 10_000)
    stage = Stage()
    session = stage.log.session("websocket", "10.0.0.1", "x")
    for number in range(1_000):
        session.granted(f"s{number}", Grant(subject="alice"))
    kept = stage.log.queued()
    assert 9_000 < sum(len(queued.data) for queued in kept) <= 10_000
    assert stage.log.lost == 1_000 - len(kept)


def test_a_record_tells_who_and_with_which_grant() -> None:
    """A record names the client and its grant in bounded length, and never more of a header than it may."""
    stage = Stage("prod")
    certified = ClientCertificate(("cn:desk",), "ab" * 32, Grant(subject="cn:desk"))
    grant = Grant(
        tuple(f"log.info.{number}" for number in range(100)),
        ("log.debug.>",), "WARN", None, None, "alice", "7", stage.now + 60, "key-1", certified,
    )  # fmt: skip
    session = stage.log.session("asgi", "10.0.0.1", "\x1b[31m" + "x" * 10_000)
    session.granted("s1", grant)
    stage.now += 10
    session.granted("s1", Grant(subject="alice"))
    stage.now += 5
    session.ended(4401)
    started, renewed, ended = stage.records()
    assert started.record == renewed.record == "session_started"
    assert (started.subject, started.token_id, started.key_id) == ("alice", "7", "key-1")
    assert (started.certificate, started.level, started.deny) == ("ab" * 32, "WARN", ["log.debug.>"])
    assert (len(started.subjects), started.expires_at) == (32, "2023-11-14T22:14:20.000Z")
    assert started.user_agent is not None
    assert started.user_agent.startswith("\\x1b[31mxxx")
    assert len(started.user_agent) == 200
    assert (started.renewed, renewed.renewed) == (False, True)
    assert ended.record == "session_ended"
    assert (ended.session, ended.code, ended.seconds, ended.bytes_sent) == ("s1", 4401, 15.0, None)
    assert stage.log.queued()[0].subject == "prod.audit.session_started.desk=2F0"


def test_a_session_without_a_grant_has_no_end() -> None:
    """A client that never got a grant appears in rejections only."""
    stage = Stage()
    stage.log.session("websocket", "10.0.0.1", None).ended(4408)
    assert stage.records() == []


def test_absent_fields_are_left_out() -> None:
    """A record has no null, so that every field that is there has a value."""
    stage = Stage()
    stage.log.session("websocket", "10.0.0.1", None).granted("s1", Grant())
    (queued,) = stage.log.queued()
    assert None not in orjson.loads(queued.data).values()
    record = RECORD.validate_json(queued.data)
    assert record_subject(record) == queued.subject


def test_any_text_can_be_recorded() -> None:
    """Undecodable text, as in a file name, is escaped; a record that is too large for NATS is lost."""
    stage = Stage()
    text = "key file /b\udcff"
    stage.log.write(Reloaded(**stage.log.fields(), read=[text], failed=[text]))
    stage.log.session("websocket", text, text).granted("1", Grant(subject=text))
    stage.log.count_rejection("expired", text)
    stage.log.count_read(Grant(subject=text), text, text)
    stage.now += audit_log.WINDOW
    stage.log.tick()
    records = stage.records()
    assert len(records) == 4
    assert records[0] == Reloaded(
        **stage.log.fields() | {"timestamp": records[0].timestamp},
        read=[r"key file /b\udcff"],
        failed=[r"key file /b\udcff"],
    )
    stage.log.write(Reloaded(**stage.log.fields(), read=["x" * audit_log.MAX_RECORD], failed=[]))
    assert (len(stage.records()), stage.log.lost) == (4, 1)
