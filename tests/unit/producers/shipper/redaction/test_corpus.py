"""Redaction measured on a corpus: recall, precision, and the table of kinds in the documentation."""

import json
import random
import re
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.redaction.redactor import Redactor
from tickertape.producers.shipper.redaction.tokens import TOKENS, WORDS

_CORPUS: Final = Path(__file__).parent / "corpus"
_PAGE: Final = Path(__file__).parents[5] / "docs" / "redaction.md"
_NOW: Final = 1_750_000_000.0
_LEAST: Final = 0.99


def _lines(name: str) -> list[str]:
    return [line for line in (_CORPUS / name).read_text().splitlines() if not line.startswith("#")]


SECRETS: Final = [tuple(line.replace("¦", "").split("\t", 1)) for line in _lines("secrets.txt")]
HARMLESS: Final = _lines("harmless.txt")

FORMS: Final[dict[str, Callable[[str], str]]] = {
    "plain": lambda text: text,
    "timed": lambda text: f"2025-06-24 10:30:45.123 ERROR {text}",
    "json": lambda text: json.dumps({"level": "info", "msg": text}),
    "logfmt": lambda text: f"level=info msg={json.dumps(text, ensure_ascii=False)} x=1",
}


def _published(text: str, counts: ParserCounts) -> str:
    parser = Parser(ParseSettings(multiline="off"), "app", counts)
    events = parser.feed([text.encode()], [1], _NOW)
    return "\n".join(event.encode().decode() for event in events)


def test_the_corpus_is_large_enough() -> None:
    """The corpus has at least 200 different lines with a secret and 200 without."""
    assert len(set(SECRETS)) >= 200
    assert len(set(HARMLESS)) >= 200


def test_secrets_are_replaced_and_nothing_else() -> None:
    """At least 99 % of the lines with a secret are as expected: the secret replaced, all else unchanged."""
    wrong = []
    for kind, text in SECRETS:
        before, _, after = text.split("§")
        redacted = Redactor(Counter()).redact_text(text.replace("§", ""))
        if redacted != f"{before}[redacted:{kind}]{after}":
            wrong.append((text, redacted))
    assert len(wrong) <= (1 - _LEAST) * len(SECRETS), wrong


@pytest.mark.parametrize("form", FORMS)
def test_recall_and_precision(form: str) -> None:
    """Recall and precision are at least 0.99 in events of every form of line."""
    missed, false = [], []
    for _, text in SECRETS:
        secret = text.split("§")[1]
        if secret in _published(FORMS[form](text.replace("§", "")), ParserCounts()):
            missed.append(text)
    for text in HARMLESS:
        counts = ParserCounts()
        _published(FORMS[form](text), counts)
        if counts.redacted:
            false.append(text)
    found = len(SECRETS) - len(missed)
    assert found / len(SECRETS) >= _LEAST, missed
    assert found / (found + len(false)) >= _LEAST, false


def test_the_documentation_lists_every_kind() -> None:
    """The table of kinds has exactly the kinds in the corpus, which has every kind of token."""
    documented = re.findall(r"^\| `([\w-]+)` \|", _PAGE.read_text(), re.MULTILINE)
    assert set(documented) == {kind for kind, _ in SECRETS}
    assert len(documented) == len(set(documented))
    assert {kind for kind, _ in (*TOKENS, *WORDS)} <= set(documented)


def _depth(chance: random.Random) -> str:
    price, step = chance.randint(1000, 9999), chance.choice((1, 5, 10, 25))
    levels = range(chance.randint(2, 10))
    return "depth " + " ".join(f"{price - level * step} {chance.randint(1, 9999)}" for level in levels)


def _bare_prices(chance: random.Random) -> str:
    price = chance.randint(1000, 9999)
    return f"{price} {price + chance.randint(1, 60)} {price - chance.randint(0, 60)} {price + 3}"


def _id(chance: random.Random) -> str:
    digits = chance.randint(13, 19)
    number = chance.randint(10 ** (digits - 1), 10**digits - 1)
    return chance.choice(("order {} filled", "{}", "id={}", '{{"orderId":{}}}', "{},{}")).format(
        number, number
    )


def _hash(chance: random.Random) -> str:
    return f"sha {chance.getrandbits(256):064x} id {uuid.UUID(int=chance.getrandbits(128), version=4)}"


def _numbers(chance: random.Random) -> str:
    return "qty " + " ".join(str(chance.randint(1, 99_999)) for _ in range(chance.randint(1, 9)))


@pytest.mark.parametrize("line", [_depth, _bare_prices, _id, _hash, _numbers])
def test_market_data_is_unchanged(line: Callable[[random.Random], str]) -> None:
    """Random prices, quantities, numbers, hashes and UUIDs contain no secret."""
    chance = random.Random(20)
    counts: Counter[str] = Counter()
    redactor = Redactor(counts)
    for _ in range(10_000):
        text = line(chance)
        assert redactor.redact_text(text) == text
