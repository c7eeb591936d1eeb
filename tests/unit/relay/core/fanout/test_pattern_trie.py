"""The trie of patterns, compared with matching each pair."""

from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.subjects import matches
from tickertape.relay.core.fanout.pattern_trie import PatternTrie

_tokens = st.sampled_from(["a", "b", "gateway"])
_subjects = st.lists(_tokens, min_size=1, max_size=4).map(".".join)
_patterns = st.builds(
    lambda tokens, rest: ".".join(tokens + rest),
    st.lists(st.one_of(_tokens, st.just("*")), max_size=4),
    st.sampled_from([["a"], ["*"], [">"]]),
)


@given(st.lists(_patterns, max_size=8), st.lists(_subjects, max_size=8))
def test_look_ups_agree_with_matching_each_pair(patterns: list[str], subjects: list[str]) -> None:
    """Look-ups return what brute-force matching returns, each value once."""
    by_pattern: PatternTrie[int] = PatternTrie()
    for number, pattern in enumerate(patterns):
        by_pattern.add(pattern, number)
    for subject in subjects:
        expected = [number for number, pattern in enumerate(patterns) if matches(pattern, subject)]
        assert sorted(by_pattern.matching(subject)) == expected


@given(st.lists(st.tuples(_patterns, st.integers(0, 3)), max_size=10), st.data())
def test_discarded_values_are_gone_and_others_remain(
    pairs: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Discarded values are not found again, other values remain, and an empty trie has no nodes left."""
    trie: PatternTrie[int] = PatternTrie()
    remaining = set(pairs)
    for pattern, value in remaining:
        trie.add(pattern, value)
    for pair in data.draw(st.permutations(sorted(remaining))):
        trie.discard(*pair)
        trie.discard(*pair)
        remaining.discard(pair)
        for subject in ("a", "a.b", "gateway.a.b"):
            expected = {value for pattern, value in remaining if matches(pattern, subject)}
            assert set(trie.matching(subject)) == expected
    assert not trie


def test_a_value_with_two_matching_patterns_is_returned_once() -> None:
    """A value with several matching patterns is returned once, since the patterns of a filter may overlap."""
    trie: PatternTrie[str] = PatternTrie()
    trie.add("log.>", "feed")
    trie.add("log.*.engine", "feed")
    assert list(trie.matching("log.info.engine")) == ["feed"]
