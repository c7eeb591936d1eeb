"""Time zones by name, from the database of this machine or the package ``tzdata``."""

from zoneinfo import ZoneInfo, available_timezones


def parse_zone(text: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ValueError: there is no such zone, or no database of time zones at all.
    """
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        if not available_timezones():
            raise ValueError(
                f"{text!r} cannot be looked up: this machine has no time zone database; "
                "install the package tzdata, with pip or that of the system"
            ) from None
        raise ValueError(
            f"{text!r} is not a time zone; use an IANA name such as Asia/Shanghai or Europe/London"
        ) from None
