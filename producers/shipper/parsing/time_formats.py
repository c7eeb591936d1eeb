"""Formats of timestamps: one table of expressions, from which everything else is compiled.

Each format has four groups: what precedes the seconds, the seconds, the digits of a fraction, and what
follows. Lines of the same minute differ only in the two in the middle, so the others are resolved once.

Directives are those of ``strptime``, and: ``%f`` an optional fraction, ``%z`` an optional time zone, ``%p``
an optional a.m. or p.m., ``%n`` three numbers with the year last, ``%o`` and ``%e`` a month and a day with
two digits, ``%I`` an hour with two digits, ``%Z`` and ``%q`` a time zone and an a.m. or p.m. that are
required. ``%P`` is an optional a.m. or p.m. in upper case.
"""

import re
from typing import Final

MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}

OFFSETS: Final = {
    "Z": 0.0, "UTC": 0, "GMT": 0, "UT": 0, "WET": 0, "WEST": 1, "CET": 1, "MET": 1, "CEST": 2, "MEST": 2,
    "EET": 2, "SAST": 2, "EEST": 3, "MSK": 3, "PKT": 5, "WIB": 7, "HKT": 8, "SGT": 8, "AWST": 8, "JST": 9,
    "KST": 9, "ACST": 9.5, "AEST": 10, "ACDT": 10.5, "AEDT": 11, "NZST": 12, "NZDT": 13, "NST": -3.5,
    "NDT": -2.5, "ADT": -3, "BRT": -3, "ART": -3, "EDT": -4, "EST": -5, "CDT": -5, "MDT": -6, "MST": -7,
    "PDT": -7, "PST": -8, "AKDT": -8, "AKST": -9, "HST": -10,
}  # fmt: skip
"""Hours to UTC of the abbreviations that denote one offset."""

AMBIGUOUS: Final = ("CST", "IST", "BST", "AST", "GST", "SST", "ECT", "AMT", "WST", "LMT")
"""Abbreviations of several zones, such as central time in America and in China. They are used only if the
file's zone has them."""

_ZONES: Final = sorted((*OFFSETS, *AMBIGUOUS), reverse=True)  # longer names come before their beginnings
_ZONE_NAMES: Final = "|".join(
    # By first letter, which excludes most words immediately.
    f"{first}(?:{'|'.join(name[1:] for name in _ZONES if name[0] == first)})"
    for first in sorted({name[0] for name in _ZONES})
)
_WEEKDAY: Final = r"(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}"

_REGIONS: Final = "Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Etc|Europe|Indian|Pacific"
_ZONE: Final = (
    # Two digits are hours and three are minutes, as in DB2's log, if no space is before them.
    r"[Zz]|(?:UTC|GMT)[+-]\d{1,2}(?::?\d\d)?|[+-](?:\d\d:?\d\d|\d:\d\d)|(?<! )[+-]\d\d\d?"
    r"|(?:[\[(]|[ \t|_]{1,3})(?:UTC|GMT)[\])]?|utc|gmt"
    rf"|(?:{_REGIONS})/[A-Z][A-Za-z_]{{1,24}}|(?:{_ZONE_NAMES})"
)

_DIRECTIVES: Final = {
    "Y": r"[12]\d{3}",
    "y": r"\d\d",
    "b": r"[A-Za-z]{3}[a-z]{0,6}\.?",
    "m": r"[01]?\d",
    "o": r"[01]\d",
    "d": r"[ 0-3]?\d",
    "e": r"[0-3]\d",
    "j": r"[0-3]\d\d",
    "n": r"[0-3]?\d(?:/[0-3]?\d/|-[0-3]?\d-|\.[0-3]?\d\.)(?:\d{4}|\d\d)(?!\d)",
    "H": r"[ 0-2]?\d",
    "M": r"[0-5]\d",
    "I": r"[ 0-2]\d",
    "P": r"[AP]\.?M\b\.?",
    "q": r"[AaPp]\.?[Mm]\b\.?",
    "p": r"[AaPp]\.?[Mm]\b\.?",
    "z": _ZONE,
    "Z": _ZONE_NAMES,
}

_TABLE: Final = (
    r"%Y[-/.]%m[-/.]%d(?:[ TtD_\t-]|,?\"? {1,8}\"?| - )%H:%M:%S%f%P%z",  # ISO 8601, Go, nginx, kdb+
    r"%Y%o%e[Tt_ .-]%H:?%M:?%S%f%z",  # 20250624 10:30:45, 20250624T103045Z
    r"%Y-%m-%d-%H\.%M\.%S%f%z",  # DB2, supercomputers
    r"%Y:%o:%e[ -]%H:%M:%S%f%z",  # Sophos, EXIF
    r"%Y-%j[Tt ]%H:%M:%S%f%z",  # day of the year
    r"(?:%a,? )?%d[/ -]%b[/ -]%Y(?:::?|,? )%H:%M:%S%f%p%z",  # access logs, PHP, Redis, BIND, RFC 2822
    r"%a,? %b {1,2}%d %H:%M:%S%f%z %Y",  # Apache error, ctime, date
    r"(?:%a,? )?%b {1,2}%d,? %Y,?(?: at)? %H:%M:%S%f%p%z",  # java.util.logging, Cisco
    r"(?:%a,? )?%b {1,2}%d,? %H:%M:%S%f%z",  # syslog
    r"%Z %b {1,2}%d %H:%M:%S%f",  # Monit
    r"%b-%e-%y %H:%M:%S%f",  # ASSP
    r"%b-%e %H:%M:%S%f",  # Nextflow
    r"%d %b %H:%M:%S%f",  # Redis 2
    r"%b/%e/%Y %H:%M:%S%f",  # RouterOS
    r"%y/%o/%e %H:%M:%S%f%z(?=[ \t]+[A-Z]{4,8} )",  # Spark, Hadoop
    r"%o/%e/%Y-%H:%M:%S%f(?=  \[\*\*\])",  # Suricata
    r"%n(?:,? {1,2}|[T:-]| - )%H:%M:%S%f%p%z",  # 24/06/2025, 06/24/2025, 24.06.2025
    r"%o-%e[ |]%H:%M:%S%f",  # Android, Ethereum
    r"%o/%e-%H:%M:%S%f",  # Snort
    r"(?<=\[)%o\.%e %H:%M:%S%f",  # Proxifier
    r"%y%o%e {1,2}%H:%M:%S%f",  # MySQL 5.5
    r"%y%o%e %H%M%S(?= \d)",  # HDFS
)
_LEVELS: Final = r"(?i:trace|debug|info|notice|warn|warning|error|eror|err|crit|critical|fatal|severe)"
_UNPADDED: Final = r"%Y%o%e-%H:(?P<M>\d{1,2}):%S:%f"
"""HealthApp writes ``20171224-0:7:4:80``."""

_ONLY_FIRST: Final = (
    # The date is the file's. An hour with one digit may be that of a duration.
    r"%I:%M:%S%f%p%z",
    r"%H:%M:%S%f ?%q",
    r"(?<=^TCF )%M:%S%f",  # Eclipse's target communication framework: the hour is the file's as well
)
_EPOCH: Final = r"([12]\d{7})(\d\d(?:\d{3}){0,3})(?:\.(\d{1,9})\d*)?()(?:\.\d{1,3}(?= \[)|(?=[\s\]),:|;]|$))"
_TAI64N: Final = r"(@4[0-9a-f]{15})([0-9a-f]{8})()()(?![0-9a-f])"


_FRACTION: Final = r"(?:(?:[.,]|:(?=\d{3}[ \]]))(\d{1,9})\d*)?"
"""Fraction, with a colon only if it has exactly three digits, as WebSphere writes it."""


class TimeFormat:
    """Format of a timestamp.

    Args:
        pattern: expression with directives, or with the four groups.
        only_first: it follows only ``PREFIX_OF_TIME``; elsewhere it may be a duration.
        unpadded: the seconds may have one digit, and the fraction is a number of milliseconds.

    Attributes:
        regex: expression with the groups before, second, fraction and after.
        is_epoch: it is a number since an epoch.
        is_numeric: its date may be ambiguous.
        is_special: a match needs more than its groups to be converted.
        begins_candidate: each of its matches begins with one of ``CANDIDATE``, and contains one of ``HINT``.
    """

    def __init__(self, pattern: str, *, only_first: bool = False, unpadded: bool = False) -> None:
        self.only_first = only_first
        self.unpadded = unpadded
        self.is_epoch = "%S" not in pattern
        self.is_numeric = "%n" in pattern
        self.is_special = self.is_epoch or unpadded or only_first
        self.begins_candidate = pattern.startswith(("%Y", "%a"))
        self.pattern = pattern
        if self.is_epoch:
            self._before = self._after = re.compile("")
        else:
            before, after = pattern.split("%S")
            digits = r"(\d{1,2})" if unpadded else r"([0-5]\d)"
            fraction = r":(\d{1,3})" if unpadded else _FRACTION if "%f" in after else "()"
            after = after.replace(":%f" if unpadded else "%f", "")
            self.pattern = f"({_expand(before)}){digits}{fraction}({_expand(after)})"
            self._before = re.compile(_expand(before, named=True), re.ASCII)
            # A lookahead is known from the match.
            self._after = re.compile(re.sub(r"\(\?=.*", "", _expand(after, named=True)), re.ASCII)
        # Groups within a directive must not change the numbers of the four.
        self.regex = re.compile(re.sub(r"\(\?P<\w+>", "(?:", self.pattern) + r"(?!\d)", re.ASCII)

    def fields(self, before: str, after: str) -> dict[str, str]:
        """Return the directives that a match has, with their texts."""
        fields: dict[str, str] = {}
        # Lookbehinds are known from the match.
        for regex, text in ((self._before, before), (self._after, after)):
            match = regex.fullmatch(text)
            fields |= {name: value for name, value in match.groupdict().items() if value} if match else {}
        # Some loggers write a.m. or p.m. after an hour of 24.
        if "p" in fields and not 1 <= int(fields.get("H", 0)) <= 12:
            del fields["p"]
        return fields


def _expand(pattern: str, *, named: bool = False) -> str:
    """Replace the directives of a pattern by expressions."""

    def replace(match: re.Match[str]) -> str:
        directive = match[1]
        if directive == "a":
            return _WEEKDAY
        # Month and day have the same names however they are written.
        name = {"o": "m", "e": "d", "Z": "z", "I": "H", "q": "p", "P": "p"}.get(directive, directive)
        text = f"(?P<{name}>{_DIRECTIVES[directive]})" if named else f"(?:{_DIRECTIVES[directive]})"
        if directive == "z":
            # Most lines have a level there, which is excluded without trying every zone.
            return rf"(?:(?! (?:INFO|DEBUG|WARN|ERROR)) ?{text}(?![A-Za-z0-9]|:\d))?"
        return f"(?: ?{text})?" if directive in "pP" else text

    if named:
        pattern = re.sub(r"\(\?<=[^)]*\)", "", pattern)
    return re.sub(r"%([A-Za-z])", replace, pattern)


_FORMATS: Final = (
    TimeFormat(_UNPADDED, unpadded=True),
    *map(TimeFormat, _TABLE),
    *(TimeFormat(pattern, only_first=True) for pattern in _ONLY_FIRST),
    TimeFormat(_EPOCH),
    TimeFormat(_TAI64N),
)
ISO: Final = _FORMATS[1]
COMPACT: Final = _FORMATS[2]
ACCESS: Final = _FORMATS[_TABLE.index(r"(?:%a,? )?%d[/ -]%b[/ -]%Y(?:::?|,? )%H:%M:%S%f%p%z") + 1]
SYSLOG: Final = _FORMATS[_TABLE.index(r"(?:%a,? )?%b {1,2}%d,? %H:%M:%S%f%z") + 1]
GLOG: Final = TimeFormat(r"%o%e %H:%M:%S%f")
"""Format after a level letter, without which it would be an ordinary number."""

GLOG_WITH_YEAR: Final = TimeFormat(r"%y%o%e %H:%M:%S%f")
"""Format of CockroachDB after a level letter."""

TIMESTAMP_PATTERN: Final = ISO.regex.pattern
"""Regular expression for the most common format, with four groups; ASCII only."""

ANY: Final = re.compile(
    "|".join(f"({re.sub(r'[(](?![?])', '(?:', time_format.regex.pattern)})" for time_format in _FORMATS),
    re.ASCII,
)
"""Expression for any format; each is a group."""

HINT: Final = re.compile(r"\d(?::[0-5]?\d|\d{5}|\.\d\d\.\d\d)", re.ASCII)
"""Expression for what every timestamp contains, which is cheap to search."""

CANDIDATE: Final = re.compile(
    r"(?<![\w./=-])(?:\d{1,4}[-/.:]\d|\d{1,2}[-/ ][A-Za-z]{3}|\d{6}(?= {1,2}\d)|\d{8}|@4[0-9a-f]"
    rf"|(?:{'|'.join(MONTHS)}|mon|tue|wed|thu|fri|sat|sun)[a-z]*(?:[., ]|[/-]\d)"
    r"|[A-Z]{2,4}T [A-Z][a-z]{2} )",
    re.ASCII | re.IGNORECASE,
)
"""Expression for the first characters of any format."""

PREFIX: Final = re.compile(
    # Atomic, so that no text takes more than linear time.
    r"(?>"
    r"\[[^\]\n]{0,80}\]|\([^)\n]{0,80}\)|\{[^}\n]{0,80}\}|\"[^\"\n]{0,80}\""
    r"|[\s\])}<>'#|:,;=*-]+|[\[({\"]"
    # Ruby, Mumble, Counter-Strike, and load balancers of AWS.
    r"|[DIWEFA](?=, \[)|[A-Z](?=>)|\AL(?= $)|(?:https?|wss?|grpcs?)(?= )"
    r"|Started [A-Z]{3,9} \"[^\"\n]{0,200}\" for [^ ]+ at "
    rf"|{_LEVELS}(?![A-Za-z0-9])"
    # Host and program of journald, and the host before a client's address.
    r"|(?:[\w.-]{1,60} )?[\w./-]{1,40}\[\d{1,10}\](?=: )|\A[A-Za-z]{1,40}(?= \d{1,3}\.\d{1,3}\.)"
    # The process in the log of a service wrapper of Java.
    r"|[A-Za-z]{1,20} \d{1,4}(?= *\|)"
    # Words that are no plain words, such as an address.
    r"|[A-Za-z]{0,40}[^A-Za-z\s\[\](){}<>\"'|,;][^\s\[\](){}<>\"'|,;]{0,80}"
    # The user in an access log, the service of a line of Docker Compose, and 'audit('.
    r"|[A-Za-z]{1,40}(?= (?:[^ ]+ )?\[$)|[A-Za-z]{1,40}(?= +\||\($)"
    r"){0,16}"
)
"""Expression for what may precede the timestamp of a line: anything but prose."""

PREFIX_OF_TIME: Final = re.compile(rf"[\[(<\"' ]*(?:\d{{1,8}} +|TCF |{_LEVELS}[\]):, ]+)?[\[(]?", re.ASCII)
"""Expression for what may precede a time without a date."""


def format_of(match: re.Match[str]) -> TimeFormat:
    """Return the format that a match of ``ANY`` has."""
    assert match.lastindex is not None
    return _FORMATS[match.lastindex - 1]
