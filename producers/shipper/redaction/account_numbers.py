"""Detection of IBANs, which have a country, a length that depends on it, and a checksum (ISO 13616)."""

import re
from collections.abc import Callable
from typing import Any, Final

from tickertape.producers.shipper.redaction.expressions import BOUNDARY, compile_bytes

_LENGTHS: Final = {
    size: countries.split()
    for size, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ OM TL SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI FR GR IT MC MR SM DJ",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
        32: "LC", 33: "RU",
    }.items()
}  # fmt: skip
_SIZES: Final = {country.encode(): size for size, countries in _LENGTHS.items() for country in countries}

_IBAN: Final = rb"(?:%s)[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?" % b"|".join(sorted(_SIZES))

SUSPECT: Final = BOUNDARY + rb"(?:%s)[0-9]{2}[ -]?[A-Z0-9]{4}[ -]?[A-Z0-9]{4}" % b"|".join(sorted(_SIZES))
"""Expression for a possible IBAN, with the character before it."""

_CANDIDATE: Final = compile_bytes(rb"\b" + _IBAN)
_SEPARATORS: Final = re.compile(rb"[ -]")
_WORD: Final = re.compile(rb"[A-Za-z0-9]")


def is_iban(text: bytes) -> bool:
    """Return whether a text without separators is an IBAN."""
    if _SIZES.get(text[:2]) != len(text):
        return False
    digits = "".join(str(int(chr(byte), 36)) for byte in text[4:] + text[:4])
    return int(digits) % 97 == 1


def replace(text: bytes, replacement: Callable[[], bytes]) -> bytes:
    """Replace every IBAN.

    Args:
        text: UTF-8.
        replacement: called for each IBAN; returns its replacement.
    """

    def replace_candidate(match: Any) -> bytes:
        found: bytes = match.group()
        # A word after the number can look like its last group.
        for stop in (
            len(found),
            *(separator.start() for separator in reversed([*_SEPARATORS.finditer(found)])),
        ):
            touched = text[match.start() + stop : match.start() + stop + 1]
            if is_iban(_SEPARATORS.sub(b"", found[:stop])) and not _WORD.match(touched):
                return replacement() + found[stop:]
        return found

    replaced: bytes = _CANDIDATE.sub(replace_candidate, text)
    return replaced
