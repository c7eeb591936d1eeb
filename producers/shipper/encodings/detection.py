"""Detection of the encoding of lines that are not valid UTF-8, by how likely each makes their characters.

Every candidate decodes the line, and each character that is not ASCII costs what ``characters`` says. Costs
of all lines of a file are added until one candidate is far cheaper than all others.
"""

import re
from dataclasses import dataclass
from typing import Final

from tickertape.producers.shipper.encodings import characters
from tickertape.producers.shipper.encodings.names import LATIN_1, UTF_8, decode_as, replace_as

CANDIDATES: Final = ("gb18030", "shift_jis", LATIN_1, "euc-jp", "big5")
"""Encodings that are detected, in order of preference."""

CONCLUSIVE_MARGIN: Final = 300
"""Difference between the costs of the two cheapest candidates that ends detection: odds of e to the 30."""

MAX_LINES: Final = 50
"""Lines after which the cheapest candidate is final in any case."""

_SAMPLE_BYTES: Final = 2048
"""Bytes of a line that are considered."""

_BINARY_RATIO: Final = 12
"""Minimum ratio of the bytes of a text to the control characters in it; random bytes have more of them."""

_MAX_DIFFERENCE: Final = 120
"""Maximum difference between the costs of a line: one line that is not text must not decide for a file."""

_EXCEPTION_MARGIN: Final = 100
"""Difference between costs at which a line has another encoding than its file."""

_INVALID_UTF_8: Final = 90
"""Cost of an invalid byte if a line is damaged UTF-8."""

_SUCCESSION: Final = 25
"""Cost of a Western letter that is not ASCII after another one."""

_START_OF_HALF_WIDTH: Final = 60
"""Cost of a succession of half-width katakana, which are rare, in addition to that of each."""

_WITHIN_WORD: Final = 30
"""Cost of a single Chinese character between two letters of ASCII."""

_OTHERS: Final = re.compile(r"[^\x00-\x7f]+")
_SURROGATES: Final = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_CONTROLS: Final = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_SUCCESSIVE: Final = re.compile(rb"[\x80-\xff][\x40-\xff][\x80-\xff][\x40-\xff]")
_TYPOGRAPHIC: Final = re.compile("[\u2010-\u20af]+")
_HALF_WIDTH: Final = re.compile("[\uff61-\uff9f]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sum of the costs of lines.

    Attributes:
        lines: number of lines.
        costs: cost of each candidate, in their order.
    """

    lines: int = 0
    costs: tuple[int, ...] = (0,) * len(CANDIDATES)

    def __add__(self, costs: tuple[int, ...]) -> "Evidence":
        return Evidence(self.lines + 1, tuple(map(sum, zip(self.costs, costs, strict=True))))

    @property
    def best(self) -> str:
        """Cheapest candidate."""
        return CANDIDATES[self.costs.index(min(self.costs))]

    @property
    def is_conclusive(self) -> bool:
        """Whether further lines will not change which candidate is the cheapest."""
        first, second, *_ = sorted(self.costs)
        return second - first >= CONCLUSIVE_MARGIN or self.lines >= MAX_LINES


def costs_of(line: bytes, *, truncated: bool = False) -> tuple[int, ...] | None:
    """Return the cost of a line for each candidate; None if it is rather damaged UTF-8, or not text.

    Args:
        line: a line that is not valid UTF-8.
        truncated: the line is truncated; its last character may be incomplete.
    """
    sample = line[:_SAMPLE_BYTES]
    truncated = truncated or len(sample) < len(line)
    costs = tuple(_cost(_decode(sample, name, truncated=truncated), name) for name in CANDIDATES)
    lowest = min(costs)
    name = CANDIDATES[costs.index(lowest)]
    if len(_CONTROLS.findall(sample)) * _BINARY_RATIO > len(sample) and (
        # Any bytes are latin-1, also those of binary data.
        name == LATIN_1 or decode_as(sample, name, truncated=truncated) is None
    ):
        return None
    if lowest > _cost_as_utf_8(sample):
        return None
    return tuple(min(cost, lowest + _MAX_DIFFERENCE) for cost in costs)


def prefers_utf_8(text: str, other: str, name: str) -> bool:
    """Return whether a line that two encodings can decode is UTF-8 rather than what the rest of its file is.

    Args:
        text: the line as UTF-8.
        other: the line in the encoding of its file.
        name: one of ``CANDIDATES`` other than latin-1.
    """
    # In any other text, bytes hardly ever form characters of UTF-8 with three bytes by chance.
    if max(text, default="") >= "\u0800":
        return True
    scores = characters.western()
    letters = (scores.get(one, 40 if "\u0370" <= one <= "\u052f" else 90) for one in text if one >= "\x80")
    return sum(letters) <= _cost(other, name)


def exception_in(line: bytes, name: str, *, truncated: bool = False) -> str:
    """Return the encoding of a line in a file that has another one, if the line does not fit into that.

    A line of latin-1 is always valid, but words that announce secrets must be recognized in all lines.

    Args:
        line: a line that is not valid UTF-8.
        name: encoding of the file, in which the line is not valid unless this is latin-1.
        truncated: see ``costs_of``.
    """
    if name == LATIN_1 and _SUCCESSIVE.search(line) is None:
        return name
    costs = costs_of(line, truncated=truncated)
    if costs is None:
        return name if name == LATIN_1 else UTF_8
    return encoding_of_line(costs, name)


def encoding_of_line(costs: tuple[int, ...], name: str) -> str:
    """Return the encoding of a line: that of its file, unless another one is far more likely.

    Args:
        costs: costs of the line.
        name: encoding of the file.
    """
    lowest = min(costs)
    is_likely = costs[CANDIDATES.index(name)] - lowest < _EXCEPTION_MARGIN
    return name if is_likely else CANDIDATES[costs.index(lowest)]


def _decode(line: bytes, name: str, *, truncated: bool) -> str:
    text = decode_as(line, name, truncated=truncated)
    return replace_as(line, name) if text is None else text


def _cost_as_utf_8(line: bytes) -> int:
    text = _SURROGATES.sub(b"\xff", line).decode(UTF_8, "replace")
    letters = characters.western() | {"\ufffd": _INVALID_UTF_8}
    return sum(letters.get(one, _cost_of_utf_8(one)) for one in text if one >= "\x80")


def _cost_of_utf_8(character: str) -> int:
    return characters.LISTED if character < "\u0800" else characters.COMMON


def _cost(text: str, name: str) -> int:
    """Return the cost of a decoded line."""
    if name == LATIN_1:
        return _western_cost(text)
    if name in ("gb18030", "big5"):
        scores = characters.chinese("gb2312" if name == "gb18030" else "cp950")
    else:
        scores = characters.japanese()
    cost = 0
    for run in _OTHERS.finditer(text):
        for one in run.group():
            cost += characters.REPLACED if one == "\ufffd" else scores.get(one, characters.RARE)
        # Chinese characters are seldom alone within a word.
        if len(run.group()) == 1 and _is_letter(text, run.start() - 1) and _is_letter(text, run.end()):
            cost += _WITHIN_WORD
    if name == "shift_jis":
        cost += _START_OF_HALF_WIDTH * len(_HALF_WIDTH.findall(text))
    return cost


def _western_cost(text: str) -> int:
    scores = characters.western()
    cost = 0
    for run in _OTHERS.finditer(text):
        cost += sum(scores.get(one, characters.LATIN_DEFAULT) for one in run.group())
        # Words have few such letters in succession.
        cost += _SUCCESSION * max(0, len(_TYPOGRAPHIC.sub("", run.group())) - 1)
    return cost


def _is_letter(text: str, index: int) -> bool:
    return 0 <= index < len(text) and "a" <= text[index] <= "z"
