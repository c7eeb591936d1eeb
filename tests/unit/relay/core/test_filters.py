"""Which events a client wants."""

import pytest
from tickertape.relay.core import filters
from tickertape.relay.core.filters import RANK, Filter, Route


@pytest.mark.parametrize(
    ("subjects", "level", "subject", "wanted"),
    [
        ((">",), "DEBUG", "log.debug.x", True),
        ((">",), "WARN", "log.info.x", False),
        ((">",), "WARN", "log.warn.x", True),
        ((">",), "CRITICAL", "gateway.status.ctp.a", True),
        ((">",), "CRITICAL", "gateway.recovery.ctp.a", True),
        ((">",), "CRITICAL", "log.nonsense.x", True),
        (("log.*.x", "system.>"), "DEBUG", "log.info.x", True),
        (("log.*.x", "system.>"), "DEBUG", "system.health.relay", True),
        (("log.*.x", "system.>"), "DEBUG", "log.info.y", False),
        (("log.error.>",), "CRITICAL", "log.error.x", False),
    ],
)
def test_patterns_and_level_decide(subjects: tuple[str, ...], level: str, subject: str, wanted: bool) -> None:
    """One pattern is enough; the level counts for subjects that name one."""
    asked = Filter(subjects, level)
    assert asked.matches(subject) is wanted
    assert asked.matches(subject) is wanted, "the remembered answer is the same"


def test_the_order_of_patterns_does_not_matter() -> None:
    """Clients that ask for the same share a feed."""
    assert Filter(("a", "b"), "INFO").key == Filter(("b", "a"), "INFO").key
    assert Filter(("a",), "INFO").key != Filter(("a",), "WARN").key


def test_remembered_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever new subjects cost time, not memory, and are answered rightly."""
    monkeypatch.setattr(filters, "MAX_KNOWN_SUBJECTS", 10)
    wanted = Filter(("log.*.even",))
    for number in range(35):
        assert wanted.matches(f"log.s{number}.even")
        assert not wanted.matches(f"log.s{number}.odd")
        assert len(wanted._matches) <= 10


@pytest.mark.parametrize(
    ("subject", "bucket", "rank"),
    [
        ("log.error.a.b", "log.error", RANK["ERROR"]),
        ("log.debug.x", "log.debug", RANK["DEBUG"]),
        ("gateway.recovery.ctp.a", "gateway.recovery", RANK["INFO"]),
        ("system.health.relay", "system.health", RANK["INFO"]),
        ("log", "log", RANK["INFO"]),
    ],
)
def test_a_route_knows_its_bucket_and_rank(subject: str, bucket: str, rank: int) -> None:
    """The first two tokens, and the level that the subject names; INFO when it names none."""
    route = Route(subject)
    assert (route.subject, route.bucket, route.rank) == (subject, bucket, rank)


def test_they_say_what_they_are() -> None:
    """The text is for logs and the status page."""
    assert repr(Filter(("log.>", "system.>"), "WARN")) == "Filter(log.>,system.> >= WARN)"
    assert repr(Route("log.info.x")) == "Route('log.info.x', 0 feeds)"
