"""``GatewayFilter``: it decides as the filter that it is compiled from."""

from hypothesis import example, given
from hypothesis import strategies as st
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.timeline.changes import RECOVERY_PREFIX, STATUS_PREFIX, GatewayKey
from tickertape.relay.core.timeline.gateway_filter import GatewayFilter
from tickertape.relay.core.timeline.timelines import subjects_of

_names = st.sampled_from(["ctp", "a", "a/b", "a=2Fb", "*", ">", "行"])
_tokens = st.sampled_from(["gateway", "status", "recovery", "ctp", "a", "a=2Fb", "=2A", "=41", "=zz", "*"])
_patterns = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(_tokens, min_size=1, max_size=6),
    st.sampled_from([[], [">"]]),
)
_subjects = st.builds(
    lambda kind, first, second: f"gateway.{kind}.{first}.{second}",
    st.sampled_from(["status", "recovery", "*"]),
    _tokens,
    _tokens,
)
_lists = st.lists(_patterns | _subjects, max_size=3)


@given(_lists, _lists, st.builds(GatewayKey, _names, _names))
@example([">"], ["*"], GatewayKey("ctp", "a"))
@example(["gateway.status.ctp.>"], ["gateway.status.ctp.a.>"], GatewayKey("ctp", "a"))
@example(["gateway.status.*.a=2Fb"], ["gateway.*.ctp.>"], GatewayKey("ctp", "a/b"))
def test_it_decides_as_its_filter(subjects: list[str], deny: list[str], gateway: GatewayKey) -> None:
    """For any patterns and any gateway, it allows what the filter matches."""
    base = Filter(tuple(subjects), "ERROR", tuple(deny))
    for prefix, subject in zip((STATUS_PREFIX, RECOVERY_PREFIX), subjects_of(gateway), strict=True):
        assert GatewayFilter(base, prefix).allows(gateway) is base.test(subject)
