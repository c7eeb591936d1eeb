"""Tokens during a session: renewed, narrowed, widened, expired, revoked, counted, rate-limited."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tickertape.contracts.events import parse_time
from tickertape.contracts.messages import Bye, Events, Gap, Snapshot, Subscribed, TokenExpiring, Welcome
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.attacks.conftest import Deploy
from tests.support.clients import forge
from tests.support.clients.attacker import bearer, browser, claims, count, exchange, get, upgrade
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, jetstream, line, publish, run, status
from tests.support.patience import PATIENCE
from tests.support.programs.deployment import Deployment
from tests.support.programs.relay_process import eventually

SECRET = forge.public_pem("HS256").decode()


def token(
    subjects: str = "log.>", life: float = 600, sub: str = "alice", jti: str | None = None, **grant: Any
) -> str:
    """Return a valid token."""
    values = claims(
        sub=sub, jti=jti, exp=time.time() + life, tickertape={"subjects": subjects.split(","), **grant}
    )
    return forge.token("HS256", values)


@pytest.fixture(scope="module")
def revoked(deployment_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the revocation list of one deployment."""
    path = tmp_path_factory.mktemp(deployment_kind) / "revoked.txt"
    path.touch()
    return path


@pytest.fixture(scope="module")
def relay(deploy: Deploy, revoked: Path) -> Iterator[Deployment]:
    """Run a relay with a secret, three connections per subject, and a low rate for mode complete."""
    with deploy(
        jwt_revoked_file=str(revoked),
        max_subject_connections="3",
        complete_rate="100",
        client_rate="0",
        **forge.RELAY_SETTINGS,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a token for a subject that no other client has."""
    return token(sub="honest")


@pytest.fixture(scope="module")
def dot(prefix: str) -> str:
    """Return the subject prefix including its dot."""
    return f"{prefix}."


def revoke(file: Path, *entries: str) -> None:
    """Replace the list atomically, as operators are told to."""
    draft = file.with_suffix(".new")
    draft.write_text("".join(f"{entry}\n" for entry in (*file.read_text().split(), *entries)))
    draft.replace(file)


def rejected(relay: Deployment, request: bytes) -> bool:
    """Return whether a request is rejected for its token."""
    answer = exchange(relay, request)
    return answer.status == 401 and answer.code == "unauthorized"


def test_a_renewed_session_continues(relay: Deployment, dot: str) -> None:
    """A renewal loses and repeats nothing, and reports the new expiry."""

    async def check() -> None:
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, token=token(), subjects="log.info.renew") as feed,
        ):
            sent = [await publish(js, line(f"{n}", source="renew"), dot) for n in range(5)]
            fresh = token(life=3600)
            await feed.send_message(type="auth", token=fresh)
            sent += [await publish(js, line(f"{n}", source="renew"), dot) for n in range(5)]
            received = await feed.one(Subscribed)
            assert received.resumed
            assert received.expires_at is not None
            assert parse_time(received.expires_at).timestamp() == pytest.approx(
                time.time() + 3600, abs=PATIENCE
            )
            await feed.events(10)
            assert feed.seqs() == sent
            assert not only(feed.messages, Bye)

    run(check())


def test_a_narrower_token_takes_effect_immediately(relay: Deployment, dot: str) -> None:
    """After a narrower token nothing that it excludes is delivered, from ``subscribed`` and the snapshot
    on.
    """

    async def check() -> None:
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, token=token("log.>,gateway.>"), subjects="log.*.narrow,gateway.>") as feed,
        ):
            for name in ("narrow-a", "narrow-b"):
                await publish(js, status(name), dot)
            seen = await publish(js, line("seen", source="narrow"), dot)
            await feed.until(lambda: seen in feed.seqs())
            await feed.send_message(type="auth", token=token("log.error.>,gateway.status.ctp.narrow-a"))
            received = await feed.one(Subscribed)
            assert received.subjects == ["log.error.narrow", "gateway.status.ctp.narrow-a"]
            snapshot = await feed.one(Snapshot)
            assert [item.event["gateway_id"] for item in snapshot.events] == ["narrow-a"]
            feed.messages.clear()
            await publish(js, line("hidden", source="narrow"), dot)
            await publish(js, status("narrow-b"), dot)
            last = await publish(js, line("shown", "ERROR", "narrow"), dot)
            await feed.until(lambda: bool(feed.seqs()))
            assert feed.seqs() == [last]
            assert not only(feed.messages, Gap)

    run(check())


def test_a_wider_token_widens(relay: Deployment, dot: str) -> None:
    """After a wider token the originally requested subjects are delivered with their states, and nothing
    twice.
    """
    requested = "log.*.wide,gateway.status.ctp.wide"

    async def check() -> None:
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, token=token("log.error.>"), subjects=requested) as feed,
        ):
            await publish(js, status("wide"), dot)
            await publish(js, line("not granted", source="wide"), dot)
            first = await publish(js, line("granted", "ERROR", "wide"), dot)
            await feed.until(lambda: first in feed.seqs())
            await feed.send_message(type="auth", token=token("log.>,gateway.>"))
            assert (await feed.one(Subscribed)).subjects == ["log.*.wide", "gateway.status.ctp.wide"]
            snapshot = await feed.one(Snapshot)
            assert [item.event["gateway_id"] for item in snapshot.events] == ["wide"]
            second = await publish(js, line("now granted", source="wide"), dot)
            await feed.until(lambda: second in feed.seqs())
            assert feed.seqs() == [first, second]

    run(check())


@pytest.mark.parametrize(
    ("renewal", "error", "code"),
    [
        (lambda: "x.y.z", "unauthorized", 4401),
        (lambda: forge.token("HS256", claims(), name="other"), "unauthorized", 4401),
        (lambda: forge.token("HS256", claims(exp=1)), "unauthorized", 4401),
        (lambda: token("gateway.>"), "forbidden", 4403),
        (lambda: forge.token("HS256", claims(tickertape=None)), "forbidden", 4403),
    ],
    ids=["garbage", "forged", "expired", "nothing left", "no claim"],
)
def test_a_bad_renewal_ends_the_session(
    relay: Deployment, renewal: Callable[[], str], error: str, code: int
) -> None:
    """An invalid renewal ends the session, even while the old token is valid."""
    message = {"type": "auth", "token": renewal()}
    inside = run(browser(relay, message, token=token(sub="bad"), query="?subjects=log.error.z"))
    assert (inside.error, inside.close) == (error, code)
    assert inside.messages[-2]["ref"] == "auth"
    kinds = [kind for kind in inside.kinds if kind != "heartbeat"]
    assert kinds == ["welcome", "subscribed", "snapshot", "error", "bye"]


def test_a_token_ends_on_time(relay: Deployment) -> None:
    """A client is warned 60 s before expiry and closed with 4401 at expiry, unless it has renewed."""

    async def received() -> None:
        async with follow(relay.ws_url, token=token(life=61, sub="told"), live=False) as feed:
            welcome = await feed.one(Welcome)
            warned = await feed.one(TokenExpiring)
            assert warned.expires_at == welcome.expires_at
            assert parse_time(warned.expires_at).timestamp() - time.time() <= 60.1

    async def ended(life: float) -> None:
        """Connect two clients that expire at the same time, one of which renews."""
        ends = time.time() + life
        async with (
            follow(relay.ws_url, token=token(life=life, sub="renewed"), live=False) as renewed,
            follow(relay.ws_url, token=token(life=life, sub="ended"), live=False) as feed,
        ):
            await renewed.one(TokenExpiring)
            await feed.one(TokenExpiring)
            await renewed.send_message(type="auth", token=token(sub="renewed"))
            await renewed.one(Subscribed)
            assert await feed.closed() == 4401
            assert time.time() - ends > -0.1
            assert [message.type for message in feed.messages[-2:]] == ["error", "bye"]
            await renewed.send_message(type="ping", id=1)
            await renewed.until(lambda: renewed.messages[-1].type == "pong")
            assert not only(renewed.messages, Bye)

    async def check() -> None:
        await received()
        for life in (2.0, 8.0, 32.0, 128.0):
            # On a busy machine a token may have expired before it was sent.
            with contextlib.suppress(InvalidStatus, ConnectionClosed):
                await ended(life)
                return
        raise AssertionError("no token lasted long enough")

    run(check())


@pytest.mark.parametrize(
    ("entry", "mine"),
    [("jti:stolen", {"jti": "stolen", "sub": "one"}), ("sub:mallory", {"jti": "x", "sub": "mallory"})],
    ids=["by id", "by subject"],
)
def test_a_revoked_token_ends_its_sessions(
    relay: Deployment, revoked: Path, entry: str, mine: dict[str, Any]
) -> None:
    """A revocation closes the token's sessions with 4401 and rejects it; other tokens are not affected."""

    async def check() -> None:
        stolen = token(**mine)
        async with (
            follow(relay.ws_url, token=stolen) as feed,
            follow(relay.ws_url, token=token(sub="one", jti="other")) as other,
        ):
            revoke(revoked, entry)
            assert await feed.closed() == 4401
            assert "revoked" in only(feed.messages, Bye)[0].reason
            await other.send_message(type="ping", id=1)
            await other.until(lambda: other.messages[-1].type == "pong")
        for request in (get("/events", bearer(stolen)), upgrade("/ws", bearer(stolen))):
            # Each worker reads the list within a second.
            for _ in range(20):
                await asyncio.to_thread(eventually, lambda: rejected(relay, request), "revoked")  # noqa: B023
        inside = await browser(relay, token=stolen)
        assert (inside.error, inside.close) == ("unauthorized", 4401)

    run(check())


@pytest.mark.parametrize(("most", "grant"), [(3, {}), (2, {"connections": 2})], ids=["relay's", "token's"])
def test_a_subject_has_so_many_connections(relay: Deployment, most: int, grant: dict[str, Any]) -> None:
    """Beyond its limit a subject gets 429 or 4429, until a connection closes or renews with another
    subject.
    """

    async def check() -> None:
        mine = token(sub=f"many-{most}", **grant)
        before = count(relay, "rejected_total", limit="subject_connections")
        async with AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(follow(relay.ws_url, token=mine)) for _ in range(most)]
            answer = await asyncio.to_thread(exchange, relay, upgrade("/ws", bearer(mine)))
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many", "5")
            inside = await browser(relay, token=mine)
            assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "too_many", 4429)
            assert inside.messages[0]["retry"]
            assert inside.messages[1]["retry_after_ms"] == 5000
            late = await browser(relay, {"type": "auth", "token": mine})
            assert (late.kinds, late.error, late.close) == (["error", "bye"], "too_many", 4429)
            assert count(relay, "rejected_total", limit="subject_connections") == before + 3
            await feeds[0].send_message(type="auth", token=token(sub=f"moved-{most}"))
            await feeds[0].one(Subscribed)
            async with follow(relay.ws_url, token=mine):
                assert (await browser(relay, token=mine)).close == 4429
            await feeds[1].socket.close()
            for _ in range(2):
                # A host's server closes a connection some time after its client; the honest client stays.
                await asyncio.to_thread(eventually, lambda: count(relay, "connections") == most, "closed")
                async with follow(relay.ws_url, token=mine):
                    pass

    run(check())


def test_the_rate_of_a_grant_is_kept(relay: Deployment, dot: str) -> None:
    """Mode live drops and counts what exceeds the grant's rate; mode complete is delayed and skips
    nothing.
    """

    async def check() -> None:
        async with AsyncExitStack() as stack:
            js = await stack.enter_async_context(jetstream(relay.nats_url))

            async def come(sub: str, mode: str, rate: float | None) -> FeedClient:
                mine = token(sub=sub) if rate is None else token(sub=sub, rate=rate)
                return await stack.enter_async_context(
                    follow(relay.ws_url, token=mine, subjects="log.error.rate", mode=mode)
                )

            live, slow = await come("r1", "live", 20), await come("r2", "complete", 50)
            capped, free = await come("r3", "complete", 100_000), await come("r4", "complete", None)
            received = only(live.messages, Welcome)[0]
            assert (received.grant.rate, received.limits.rate) == (20, 20)
            started = time.monotonic()
            sent = await asyncio.gather(
                *(publish(js, line(f"{n}", "ERROR", "rate"), dot) for n in range(200))
            )

            async def complete(feed: FeedClient, least: float) -> None:
                await feed.events(200)
                assert feed.seqs() == list(sent)
                assert not only(feed.messages, Gap)
                assert time.monotonic() - started > least

            # One second's worth arrives as a burst; the rest at 50 and 100 events a second.
            await asyncio.gather(complete(slow, 2.5), complete(capped, 0.7), complete(free, 0))
            last = await publish(js, line("last", "ERROR", "rate"), dot)
            await live.until(lambda: last in live.seqs())
            gaps = only(live.messages, Gap)
            assert {gap.reason for gap in gaps} <= {"rate"}
            assert sum(gap.dropped or 0 for gap in gaps) + len(live.seqs()) == 201
            assert 20 <= len(live.seqs()) <= 20 + 20 * (time.monotonic() - started) + 2
            assert only(live.messages, Events)

    run(check())
