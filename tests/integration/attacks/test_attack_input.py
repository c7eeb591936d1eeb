"""Malicious producers: ids that would be other subjects, false bodies, control characters."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.contracts.messages import Events, Snapshot
from tickertape.contracts.subjects import SubjectError, unescape
from tickertape.producers.sdk.publisher import Publisher

from tests.support.clients.attacker import exchange, get
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import (
    PATIENCE,
    FeedClient,
    follow,
    jetstream,
    line,
    publish,
    run,
    status,
)
from tests.support.programs.relay_process import Relay, command, environment, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer

EVENTS = "EVENTS_test_attack_input"
REJECTED = "REJECTED_test_attack_input"


@pytest.fixture(scope="module")
def relay(nats: NatsServer, prefix: str) -> Iterator[Relay]:
    """Run a relay without tokens; these tests check what it delivers."""
    with Relay(nats.url, TICKERTAPE_SUBJECT_PREFIX=prefix) as running:
        yield running


@pytest.fixture(scope="module")
def dot(prefix: str) -> str:
    """Return the subject prefix including its dot."""
    return f"{prefix}."


async def length(js: JetStreamContext) -> int:
    """Return the number of events in the stream."""
    return (await js.stream_info(EVENTS)).state.last_seq


IDS = [
    "a b", "a\r\nPUB evil 3\r\nxxx\r\n", "a\r\nPUB log.error.x 0\r\n\r\n",
    "*", ">", "a.b", ".", "..", "a.>",
    "=", "=41", "a=2Eb", "\0", "a\0b", "\t", "\u202eevil", "é", "密码", "😀", "../../x", "%2e", "$JS",
    "_INBOX",
    "'; DROP TABLE x; --", "<script>", "\x1b[2J", "\x7f",
]  # fmt: skip


def change(gateway: str) -> GatewayStatusChange:
    """Return a status of a gateway with any name."""
    return GatewayStatusChange(
        gateway_id=gateway,
        gateway_type="inject",
        previous_status=Status.UNKNOWN,
        current_status=Status.HEALTHY,
    )


def test_an_id_is_one_token_whatever_is_in_it(relay: Relay, prefix: str) -> None:
    """Any id is exactly one token of the subject, and nothing else is published."""

    async def check() -> None:
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, subjects="gateway.status.inject.*") as feed,
            follow(relay.ws_url) as everything,
            Publisher(relay.nats_url, prefix=prefix) as publisher,
        ):
            before = await length(js)
            for gateway in IDS:
                await publisher.publish(change(gateway))
            assert await length(js) == before + len(IDS)
            for client in (feed, everything):
                bodies = await client.events(len(IDS))
                assert [body["gateway_id"] for body in bodies] == IDS
                subjects = [
                    item.subject for message in only(client.messages, Events) for item in message.events
                ]
                assert [unescape(subject.rpartition(".")[2]) for subject in subjects] == IDS
                assert all(subject.count(".") == 3 for subject in subjects)

    run(check())


@pytest.mark.parametrize("gateway", ["", "x" * 129, "é" * 43, "\ud800"])
def test_an_id_that_makes_no_token_is_not_published(relay: Relay, gateway: str) -> None:
    """An id that cannot be a token is an error for its producer; it is not truncated or replaced."""
    with pytest.raises((SubjectError, ValueError)):
        change(gateway).subject  # noqa: B018


def test_a_subject_of_the_command_line_is_one(relay: Relay, prefix: str) -> None:
    """``tickertape publish`` rejects a subject that would be several or none, and publishes nothing."""
    evil = "log.info.x\r\nPUB log.error.x 2\r\n{}"
    subjects = [evil, "log.info.a b", "log.*.x", "log.>", "log..x", "log.info.x.", "\0", "", "log.info.=41"]
    body = {"event_type": "system_log", "message": "m"}

    async def count() -> int:
        async with jetstream(relay.nats_url) as js:
            return await length(js)

    before = run(count())
    publish_to = ("publish", "--nats-url", relay.nats_url)
    done = run_command(*publish_to, evil, json.dumps(body), TICKERTAPE_SUBJECT_PREFIX=prefix)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    lines = subprocess.run(
        command(*publish_to),
        env=environment(TICKERTAPE_SUBJECT_PREFIX=prefix),
        input="".join(json.dumps({"subject": one, "event": body}) + "\n" for one in subjects),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (lines.returncode, lines.stdout) == (1, "")
    assert [row.partition(":")[0] for row in lines.stderr.splitlines()] == [
        f"line {number + 1}" for number in range(len(subjects))
    ]
    assert run(count()) == before


def test_an_event_that_lies_about_its_subject_is_stored(relay: Relay, dot: str) -> None:
    """An event whose id, level or type differs from its subject is stored in REJECTED and not delivered."""
    lies = {
        "gateway.status.ctp.a": status("b").encode(),
        "gateway.status.evil.a": status("a").encode(),
        "log.debug.x": line("LIE", "CRITICAL", "x").encode(),
        "log.info.y": line("LIE", "INFO", "x").encode(),
        "system.health.a": line("LIE", "INFO", "x").encode(),
        "log.info.=78": line("LIE", "INFO", "x").encode(),
        "log.info.x.y": line("LIE", "INFO", "x").encode(),
    }

    async def check() -> None:
        async with jetstream(relay.nats_url) as js, follow(relay.ws_url) as feed:
            filed = await rejected(js)
            for subject, body in lies.items():
                await js.publish(dot + subject, body)
            last = await publish(js, line("truth", "ERROR", "t"), dot)
            await feed.until(lambda: last in feed.seqs())
            assert feed.seqs() == [last]
            async with asyncio.timeout(PATIENCE):
                while await rejected(js) < filed + len(lies):
                    await asyncio.sleep(0.02)
            kept = [await js.get_msg(REJECTED, seq=filed + 1 + n) for n in range(len(lies))]
            assert {(one.subject, one.data) for one in kept} == {
                (f"{dot}rejected.{subject}", body) for subject, body in lies.items()
            }
            async with follow(relay.ws_url, subjects="gateway.status.>") as fresh:
                shown = {item.subject for one in only(fresh.messages, Snapshot) for item in one.events}
                assert not shown & set(lies)
        for query in ("", "order=newest", "subjects=log.debug.x,system.>"):
            assert b"LIE" not in exchange(relay, get(f"/events?limit=1000&{query}")).body

    run(check())


async def rejected(js: JetStreamContext) -> int:
    """Return the number of rejected events so far."""
    try:
        return (await js.stream_info(REJECTED)).state.last_seq
    except NotFoundError:
        return 0


STEERING = (
    "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://evil.com\x1b\\link", "\x9b31m", "\x9d0;t\x9c",
    "\rover", "\b\b\bback", "a\nb", "\u202egnp.exe", "\u2066\u2069", "\u200e", "\u2028", "\x00", "\x7f",
    "[bold red]markup[/]", "[link=http://evil.com]x[/link]", "<script>alert(1)</script>", "\ufeff",
    "\U000e0041",
)  # fmt: skip


def test_a_line_does_not_steer_the_terminal(relay: Relay, dot: str, tmp_path: Path) -> None:
    """``tickertape tail`` escapes control and bidirectional characters in every field, and prints markup as
    text.
    """

    async def stock() -> str:
        async with jetstream(relay.nats_url) as js, follow(relay.ws_url) as feed:
            start = feed.cursor
            for text in STEERING:
                await publish(js, line(text, "INFO", "steer"), dot)
                await publish(js, line("x", "INFO", f"s{text}"), dot)
                await publish(js, change(f"g{text}"), dot)
            await publish(js, line("the end", "ERROR", "steer"), dot)
            return start

    cursor = run(stock())
    for options in ([], ["--json"]):
        out = tmp_path / f"tail{len(options)}"
        with out.open("wb") as file:
            tail = subprocess.Popen(
                command("tail", "--url", relay.ws_url, "--cursor", cursor, "--mode", "complete", *options),
                env=environment(TERM="xterm-256color"), stdout=file, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                eventually(lambda: b"the end" in out.read_bytes(), "all is shown")  # noqa: B023
            finally:
                tail.terminate()
                _, output = tail.communicate(timeout=PATIENCE)
        assert output.decode().rstrip("\n").isprintable()
        text = out.read_bytes().decode()
        assert [char for char in text if not char.isprintable() and char != "\n"] == []
        if options:
            bodies = [json.loads(row)["event"] for row in text.split("\n") if "log.info.steer" in row]
            assert [body["message"] for body in bodies][: len(STEERING)] == list(STEERING)
        else:
            assert text.count("\n") == 3 * len(STEERING) + 1
            assert "[bold red]markup[/]" in text
            assert "<script>alert(1)</script>" in text


def test_a_secret_in_a_log_file_does_not_reach_the_stream(relay: Relay, prefix: str, tmp_path: Path) -> None:
    """The shipper redacts a secret before it leaves the host; the line itself arrives."""
    secrets = [
        "hunter2secret",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
        "AKIAIOSFODNN7EXAMPLE",
        "s3cr3tpw",
    ]
    file = tmp_path / "gateway.log"
    file.write_text(
        f"2025-06-24 10:30:45 INFO login password={secrets[0]} ok\n"
        f"2025-06-24 10:30:46 INFO sent Authorization: Bearer {secrets[1]}\n"
        f"2025-06-24 10:30:47 ERROR aws {secrets[2]} denied\n"
        f"2025-06-24 10:30:48 WARN connecting to postgres://bob:{secrets[3]}@db/x\n"
    )
    command_line = (
        "ship",
        str(file),
        "--source",
        "shipped",
        "--once",
        "--state-dir",
        str(tmp_path / "state"),
    )

    async def check() -> FeedClient:
        async with follow(relay.ws_url, subjects="log.*.shipped") as feed:
            done = await asyncio.to_thread(
                lambda: run_command(
                    *command_line, "--nats-url", relay.nats_url, TICKERTAPE_SUBJECT_PREFIX=prefix
                )
            )
            assert done.returncode == 0, done.stderr
            assert not any(secret in done.stderr + done.stdout for secret in secrets)
            texts = await feed.texts(4)
            assert "login" in texts[0]
            assert "denied" in texts[2]
            return feed

    feed = run(check())
    received = "".join(message.model_dump_json() for message in feed.messages)
    received += exchange(relay, get("/events?limit=1000")).body.decode()
    assert not any(secret in received for secret in secrets)
