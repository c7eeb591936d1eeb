"""Queries of the endpoints about gateways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tickertape.contracts.client_messages import check_subjects
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import parse_time
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.subjects import SubjectError, unescape
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import read_query
from tickertape.relay.core.timeline.changes import RECOVERY_PREFIX, STATUS_PREFIX, GatewayKey
from tickertape.relay.core.timeline.gateway_filter import GatewayFilter

from tickertape.durations import is_duration, parse_duration

MAX_LIMIT: Final = 1_000
"""Maximum number of gateways, incidents or statuses in one page."""

DEFAULT_LIMIT: Final = 100
"""Default number of incidents and statuses in one page; of gateways, it is ``MAX_LIMIT``."""

LISTING_KEYS: Final = ("subjects", "since", "until", "after", "limit")
STATE_KEYS: Final = ("subjects", "at", "after", "limit")
HISTORY_KEYS: Final = ("since", "until", "order", "limit")
INCIDENT_KEYS: Final = ("subjects", "since", "until", "limit")
"""Query parameters of each endpoint."""

_LIMIT: Final = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Moment:
    """Time in a query: ``ago`` seconds before now, or ``moment`` in UNIX seconds."""

    ago: float | None = None
    moment: float = 0.0

    def at(self, now: float) -> int:
        """Return the time in UNIX milliseconds, at most that of ``now`` in seconds."""
        return round(min(now, self.moment if self.ago is None else now - self.ago) * 1000)


@dataclass(frozen=True, slots=True)
class GatewayQuery:
    """Query about gateways, restricted to what its client may see.

    Attributes:
        gateway: the only gateway; None for all.
        subjects: patterns of the status subjects of gateways.
        since: start of the range, or None.
        until: end of the range, or None for now.
        after: gateway after which a list continues.
        limit: maximum number of results.
        newest_first: whether to read statuses from the end of the range.
        statuses: filter of the gateways whose statuses the client may see.
        recoveries: filter of those whose recoveries it may see; None for none.
    """

    gateway: GatewayKey | None = None
    subjects: tuple[str, ...] = (STATUS_PREFIX + ">",)
    since: Moment | None = None
    until: Moment | None = None
    after: GatewayKey | None = None
    limit: int = MAX_LIMIT
    newest_first: bool = False
    statuses: GatewayFilter = field(default_factory=lambda: GatewayFilter(Filter(()), STATUS_PREFIX))
    recoveries: GatewayFilter | None = None

    def authorize(self, grant: Grant) -> "GatewayQuery":
        """Restrict the query to what a grant allows.

        Raises:
            ProtocolError: it allows no status of the requested gateways.
        """
        recoveries: GatewayFilter | None
        try:
            granted = grant.intersect((RECOVERY_PREFIX + ">",), "DEBUG")
            recoveries = GatewayFilter(granted, RECOVERY_PREFIX)
        except ProtocolError:
            recoveries = None
        statuses = GatewayFilter(grant.intersect(self.subjects, "DEBUG"), STATUS_PREFIX)
        return replace(self, statuses=statuses, recoveries=recoveries)


def parse_query(
    query: str, keys: tuple[str, ...], gateway: GatewayKey | None = None, limit: int = DEFAULT_LIMIT
) -> GatewayQuery:
    """Parse the query string of an endpoint about gateways.

    Args:
        query: undecoded query.
        keys: parameters of the endpoint.
        gateway: gateway in the path, or None.
        limit: default number of results.

    Raises:
        ProtocolError: a parameter is unknown or invalid.
    """
    values = read_query(query, keys)
    since, until = _moment(values, "since"), _moment(values, "until") or _moment(values, "at")
    limit_text, order = values.get("limit", str(limit)), values.get("order", "oldest")
    if not _LIMIT.fullmatch(limit_text) or not 1 <= int(limit_text) <= MAX_LIMIT:
        raise ProtocolError(ErrorCode.BAD_QUERY, f"limit {limit_text!r:.20} is not in 1..{MAX_LIMIT}")
    if order not in ("oldest", "newest"):
        raise ProtocolError(ErrorCode.BAD_QUERY, f"order {order!r:.20} is neither oldest nor newest")
    found = GatewayQuery(
        gateway=gateway,
        since=since,
        until=until,
        after=parse_position(values["after"]) if "after" in values else None,
        limit=int(limit_text),
        newest_first=order == "newest",
    )
    if "subjects" not in values:
        return found
    subjects = check_subjects(values["subjects"].split(","))
    if not subjects:
        raise ProtocolError(ErrorCode.BAD_SUBJECTS, "subjects: an empty list selects nothing; omit it")
    return replace(found, subjects=subjects)


def gateway_of_path(path: Mapping[str, str]) -> GatewayKey:
    """Return the gateway that the parameters ``type`` and ``id`` of a path name.

    A segment that is a token of a subject stands for the text that it encodes, whichever gateways exist: a
    request for ``a=2Fb`` concerns ``a/b``, and never a gateway whose id is ``a=2Fb`` (which is ``a=3D2Fb``).
    """
    return GatewayKey(_decode_segment(path["type"]), _decode_segment(path["id"]))


def _decode_segment(segment: str) -> str:
    try:
        return unescape(segment)
    except SubjectError:
        return segment


def parse_position(text: str) -> GatewayKey:
    """Parse the position in a list of gateways: type and id, as they are in a subject.

    Raises:
        ProtocolError: it is not one.
    """
    try:
        gateway_type, gateway_id = text.split(".")
        return GatewayKey(unescape(gateway_type), unescape(gateway_id))
    except (SubjectError, ValueError):
        message = f"after {text[:40]!r} is not a position; send the 'next' of the page before"
        raise ProtocolError(ErrorCode.BAD_QUERY, message) from None


def _moment(values: dict[str, str], key: str) -> Moment | None:
    text = values.get(key)
    if text is None:
        return None
    if is_duration(text):
        return Moment(ago=parse_duration(text))
    try:
        return Moment(moment=parse_time(text).timestamp())
    except (ValueError, OverflowError):
        raise ProtocolError(
            ErrorCode.BAD_SINCE if key == "since" else ErrorCode.BAD_QUERY,
            f"{key} {text[:40]!r} is neither a duration such as 30d nor an RFC 3339 time",
        ) from None
