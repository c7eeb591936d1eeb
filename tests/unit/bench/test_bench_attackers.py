"""The attackers: their mix, and that each does what its name says."""

from collections import Counter

import pytest
from tickertape.relay.auth.key_parsing import read_keys
from tickertape.relay.auth.keys import FixedKeys
from tickertape.relay.auth.verifier import TokenError, Verifier
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.bench.attackers import Attack
from tests.bench.load.attack_kinds import honest_token, kinds
from tests.bench.tokens import cost

SECRET = b"s" * 40
NOW = 1_750_000_000.0


def test_all_categories_are_equally_frequent() -> None:
    """Any consecutive part of the list has the same number of every category."""
    all_kinds = kinds(SECRET, NOW)
    assert Counter(kind.category for kind in all_kinds) == dict.fromkeys(
        ("token", "half", "slow", "flood"), len(all_kinds) // 4
    )
    assert len({kind.name for kind in all_kinds}) == 19
    assert len(all_kinds) % 7, "a load generator uses every seventh kind"


def test_bad_tokens_are_bad_and_the_honest_one_is_good() -> None:
    """Each bad token is rejected for its own reason, and the honest one is accepted."""
    verifier = Verifier("HS256", FixedKeys(read_keys("HS256", SECRET, "test")), wall=lambda: NOW)
    assert verifier.verify(honest_token(SECRET, NOW)).subjects == (">",)
    for kind in kinds(SECRET, NOW):
        server = ServerProtocol()
        if kind.category == "token":
            server.receive_data(kind.first)
            (request,) = server.events_received()
            assert isinstance(request, Request)
            given = request.headers.get("Authorization")
            if given is not None:
                with pytest.raises(TokenError):
                    verifier.verify(given.removeprefix("Bearer "))
    assert set(verifier.failures) == {"signature", "expired", "malformed"}


def test_an_attack_is_judged_by_its_effect_on_honest_clients() -> None:
    """The limit is three times the latency before the attack, or 25 ms; growth is the maximum observed."""
    ends = {"token: admitted": 2, "half: disconnected": 5}
    attack = Attack(64, 2_000, 4_000, 2.0, ends, 0, 0, 5.0, 9.0, 0.2, 0.6, 50, 90, 70, 0.1)
    assert (attack.p99_limit_ms, attack.growth, attack.admitted, attack.rate) == (25.0, 40, 2, 2_000)
    assert attack.cpu_us == pytest.approx(200)


def test_tokens_are_measured() -> None:
    """Verifying a cached token costs less than a new one."""
    row = cost("EdDSA", 20)
    assert row.cached < row.fresh
    assert row.forged > 0
