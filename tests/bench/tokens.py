"""The scenario of tokens: what verifying one costs, for each algorithm, anew and from memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from tickertape.relay.auth.key_parsing import read_keys
from tickertape.relay.auth.keys import FixedKeys
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.auth.signing import generate_key, mint, read_signing_key
from tickertape.relay.auth.verifier import TokenError, Verifier

TOKENS: Final = 500

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Median microseconds of CPU for one token of an algorithm.

    Attributes:
        algorithm: that it is signed with.
        fresh: never seen before.
        known: remembered from before.
        forged: signed with another key.
    """

    algorithm: str
    fresh: float
    known: float
    forged: float


def tokens(say: Say, rows: list[TokenCost]) -> None:
    """Measure it; ``rows`` get one for each algorithm."""
    for algorithm in get_args(Algorithm):
        row = cost(algorithm)
        rows.append(row)
        say(
            f"tokens: {algorithm}: {row.fresh:.0f} us for a new one, {row.known:.0f} us for a known one,"
            f" {row.forged:.0f} us for a forged one"
        )


def cost(algorithm: Algorithm, count: int = TOKENS) -> TokenCost:
    """Measure one algorithm with so many tokens."""
    private, public = generate_key(algorithm)
    signing = read_signing_key(algorithm, private.removesuffix(b"\n"), "the benchmark")
    other = read_signing_key(algorithm, generate_key(algorithm)[0], "the benchmark")
    keys = read_keys(algorithm, (public or private).removesuffix(b"\n"), "the benchmark")
    verifier = Verifier(algorithm, FixedKeys(keys))
    grant = {"subjects": ["log.>", "gateway.status.>"], "deny": ["log.debug.>"], "level": "INFO"}
    ends = int(time.time()) + 3_600
    claims = [
        {"sub": f"user-{number}", "jti": f"{number}", "exp": ends, "tickertape": grant}
        for number in range(count)
    ]
    good = [mint(algorithm, signing, each) for each in claims]
    forged = [mint(algorithm, other, each) for each in claims]
    return TokenCost(
        algorithm, _median(verifier, good), _median(verifier, good), _median(verifier, forged, good=False)
    )


def _median(verifier: Verifier, some: list[str], *, good: bool = True) -> float:
    costs = []
    for token in some:
        began = time.perf_counter_ns()
        try:
            verifier.verify(token)
        except TokenError:
            assert not good
        else:
            assert good
        costs.append(time.perf_counter_ns() - began)
    return sorted(costs)[len(costs) // 2] / 1000
