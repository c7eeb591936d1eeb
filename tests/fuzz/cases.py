"""Cases: the actions of one untrusted client, derived from a seed."""

import random
from dataclasses import dataclass
from typing import Final

import orjson
from tickertape.relay.auth.claims import ExpectedClaims
from tickertape.relay.auth.keys import FixedKeys, Key, Keys
from tickertape.relay.auth.signing import mint
from tickertape.relay.auth.verifier import Verifier

from tests.fuzz.frames import frames
from tests.fuzz.heads import head, upgrade
from tests.fuzz.mutate import BYTES, pieces

SECRET: Final = b"a secret for nothing but to fuzz with"
NOW: Final = 1_750_000_000.0
"""UNIX seconds at the start of every run in the process."""

_END: Final = 4_000_000_000

WAIT: Final = "wait"
END: Final = "end"
FULL: Final = "full"
CAPACITY: Final = "room"


@dataclass(frozen=True, slots=True)
class Case:
    """Actions of one untrusted client.

    Attributes:
        seed: seed from which the case was generated.
        steps: bytes to receive in one read; or ``wait`` some seconds, ``end`` the client's side, become
            ``full``, or have ``room`` again.
        stays: whether the client waits until the relay closes the connection.
    """

    seed: int
    steps: tuple[bytes | str, ...]
    stays: bool

    def __str__(self) -> str:
        shown = "\n".join(f"  {step!r:.2000}" for step in self.steps)
        return f"case {self.seed} (python -m tests.fuzz --seed {self.seed}), stays={self.stays}:\n{shown}"


def verifier() -> Verifier:
    """Return the verifier of the tokens in these cases."""
    return Verifier(
        "HS256", FixedKeys(Keys("HS256", (Key(None, SECRET),))), expected=ExpectedClaims(), wall=lambda: NOW
    )


def _tokens() -> list[str]:
    grants = [
        {"subjects": [">"], "connections": 100_000},
        {"subjects": ["log.>", "gateway.status.*.a"], "deny": ["log.debug.>"], "level": "INFO", "rate": 5},
        {"subjects": ["log.info.x"], "connections": 1},
    ]
    good = [
        mint("HS256", SECRET, {"sub": f"s{n}", "exp": _END, "tickertape": grant})
        for n, grant in enumerate(grants)
    ]
    soon = mint("HS256", SECRET, {"sub": "soon", "exp": NOW + 50, "tickertape": grants[0]})
    over = mint("HS256", SECRET, {"sub": "over", "exp": NOW - 50, "tickertape": grants[0]})
    forged = mint("HS256", b"x" * 40, {"sub": "s0", "exp": _END, "tickertape": grants[0]})
    none = "eyJhbGciOiJub25lIn0." + good[0].split(".")[1] + "."
    return [*good, *good, good[0], soon, over, forged, none, "x.y.z", "", "a" * 17_000, "\u00e9"]


TOKENS: Final = _tokens()
PLAIN: Final = [token for token in TOKENS if token.isascii()]


def case(seed: int, *, files: bool = False) -> Case:
    """Return the case of a seed.

    Args:
        seed: any number.
        files: whether the case may request files.
    """
    rng = random.Random(seed)
    way = rng.random()
    data: list[bytes] = []
    if way < 0.35:
        data = [head(rng, PLAIN, files=files) for _ in range(rng.choice((1, 1, 1, 2, 3, 20)))]
        if rng.random() < 0.7:
            data = [b"".join(data)]
    elif way < 0.45:
        data = [head(rng, PLAIN, files=files), frames(rng, TOKENS)]
    elif way < 0.48:
        data = [rng.randbytes(rng.choice((1, 100, 5_000, 70_000)))]
    elif way < 0.5:
        data = [b"".join(rng.choice(BYTES) for _ in range(rng.randrange(30)))]
    else:
        target = rng.choice(
            ("/ws", "/ws?subjects=log.%3E", "/ws?cursor=e-1", "/ws?since=earliest&mode=complete")
        )
        data = ["\r\n".join([*upgrade(rng, PLAIN, target), "", ""]).encode()]
        if rng.random() < 0.5:
            body = orjson.dumps({"type": "auth", "token": PLAIN[0]})
            data.append(b"\x81\xfe" + len(body).to_bytes(2) + b"\0\0\0\0" + body)
        data += [frames(rng, TOKENS) for _ in range(rng.choice((1, 1, 2, 4)))]
    steps: list[bytes | str] = [piece for one in data for piece in pieces(rng, one)]
    for word, chance in ((FULL, 0.05), (CAPACITY, 0.04), (END, 0.1), (WAIT, 0.03)):
        if rng.random() < chance:
            steps.insert(rng.randint(0, len(steps)), word)
    return Case(seed, tuple(steps), rng.random() < 0.1)
