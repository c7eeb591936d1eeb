"""Direct reads of the last messages of many subjects."""

from pathlib import Path

import pytest

from tests.support.clients.feed_client import run
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection, direct_get, streams
from tickertape.nats.credentials import Access

DENIED = """
authorization { users: [
  { user: all, password: secret }
  { user: some, password: secret,
    permissions: { publish: { deny: "$JS.API.DIRECT.GET.EVENTS.log.info.s7" } } }
] }
"""


def test_the_last_message_of_each_subject_is_read(nats_url: str, nats_prefix: str) -> None:
    """More subjects than requests in flight are read, and those without a message are told."""

    async def work() -> None:
        client = await connection.connect(nats_url, name="test")
        names = Names(nats_prefix)
        await streams.provision(client, names)
        subjects = [names.subject(f"log.info.s{number}") for number in range(2 * direct_get.WINDOW + 7)]
        js = client.jetstream()
        for text in (b"old", b"new"):
            for subject in subjects[:20]:
                await js.publish(subject, text)
        found = await direct_get.get_last_messages(client, names.stream("EVENTS"), subjects)
        assert found.keys() == set(subjects)
        assert {subject: message.data for subject, message in found.items() if message} == dict.fromkeys(
            subjects[:20], b"new"
        )
        one = await direct_get.get_last_message(client, names.stream("EVENTS"), subjects[3])
        assert found[subjects[3]] == one
        assert await direct_get.get_last_messages(client, names.stream("EVENTS"), []) == {}
        await connection.close(client)

    run(work())


def test_a_subject_without_a_reply_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NATS denies is not taken for a subject without a message."""
    monkeypatch.setattr(direct_get, "IDLE_TIMEOUT", 0.5)

    async def work(url: str) -> None:
        client = await connection.connect(url, name="test", access=Access(user="all", password="secret"))
        await streams.provision(client, Names())
        await connection.close(client)
        client = await connection.connect(url, name="test", access=Access(user="some", password="secret"))
        wanted = [f"log.info.s{number}" for number in range(20)]
        found = await direct_get.get_last_messages(client, "EVENTS", wanted)
        assert found == dict.fromkeys(wanted[:7] + wanted[8:])
        await connection.close(client)

    with NatsServer(tmp_path / "nats", config=DENIED) as server:
        run(work(server.url))
