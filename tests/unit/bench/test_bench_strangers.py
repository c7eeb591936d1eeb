"""The attackers: their mix, and that each does what its name says."""

from collections import Counter

import pytest
from tickertape.relay.auth.key_parsing import read_keys
from tickertape.relay.auth.keys import FixedKeys
from tickertape.relay.auth.verifier import TokenError, Verifier
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.bench.load.stranger_kinds import honest_token, kinds
from tests.bench.strangers import Siege
from tests.bench.tokens import cost

SECRET = b"s" * 40
NOW = 1_750_000_000.0


def test_all_sorts_come_evenly() -> None:
    """Any consecutive part of the list has the same number of every kind."""
    some = kinds(SECRET, NOW)
    assert Counter(kind.sort for kind in some) == dict.fromkeys(
        ("token", "half", "slow", "flood"), len(some) // 4
    )
    assert len({kind.name for kind in some}) == 19
    assert len(some) % 7, "a load generator takes every seventh"


def test_bad_tokens_are_bad_and_the_honest_one_is_good() -> None:
    """Each bad token is rejected for its own reason, and the honest one is accepted."""
    verifier = Verifier("HS256", FixedKeys(read_keys("HS256", SECRET, "test")), wall=lambda: NOW)
    assert verifier.verify(honest_token(SECRET, NOW)).subjects == (">",)
    for kind in kinds(SECRET, NOW):
        server = ServerProtocol()
        if kind.sort == "token":
            server.receive_data(kind.first)
            (request,) = server.events_received()
            assert isinstance(request, Request)
            given = request.headers.get("Authorization")
            if given is not None:
                with pytest.raises(TokenError):
                    verifier.verify(given.removeprefix("Bearer "))
    assert set(verifier.failures) == {"signature", "expired", "malformed"}


def test_a_siege_is_judged_by_what_honest_clients_notice() -> None:
    """The limit is three times the latency before the attack, or 25 ms; growth is the maximum observed."""
    siege = Siege(
        64, 2_000, 4_000, 2.0, {"token: let in": 2, "half: cut": 5}, 0, 0, 5.0, 9.0, 0.2, 0.6, 50, 90, 70, 0.1
    )
    assert (siege.bound_ms, siege.growth, siege.let_in, siege.rate) == (25.0, 40, 2, 2_000)
    assert siege.each_us == pytest.approx(200)


def test_tokens_are_measured() -> None:
    """Verifying a cached token costs less than a new one."""
    row = cost("EdDSA", 20)
    assert row.known < row.fresh
    assert row.forged > 0
