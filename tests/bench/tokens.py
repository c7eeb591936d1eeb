"""Scenario ``tokens``: cost of verifying a token, for each algorithm, uncached and cached."""

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

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Median microseconds to verify one token of an algorithm.

    Attributes:
        algorithm: algorithm that signs the tokens.
        fresh: token not seen before.
        cached: token verified before.
        forged: token signed with another key.
    """

    algorithm: str
    fresh: float
    cached: float
    forged: float


def tokens(progress: Progress, rows: list[TokenCost]) -> None:
    """Measure every algorithm; append one row each."""
    for algorithm in get_args(Algorithm):
        row = cost(algorithm)
        rows.append(row)
        progress(
            f"tokens: {algorithm}: {row.fresh:.0f} us new, {row.cached:.0f} us cached,"
            f" {row.forged:.0f} us forged"
        )


def cost(algorithm: Algorithm, count: int = TOKENS) -> TokenCost:
    """Measure one algorithm with ``count`` tokens."""
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
    good = [mint(algorithm, signing, claim) for claim in claims]
    forged = [mint(algorithm, other, claim) for claim in claims]
    return TokenCost(
        algorithm, _median(verifier, good), _median(verifier, good), _median(verifier, forged, good=False)
    )


def _median(verifier: Verifier, batch: list[str], *, good: bool = True) -> float:
    costs = []
    for token in batch:
        began = time.perf_counter_ns()
        try:
            verifier.verify(token)
        except TokenError:
            assert not good
        else:
            assert good
        costs.append(time.perf_counter_ns() - began)
    return sorted(costs)[len(costs) // 2] / 1000
