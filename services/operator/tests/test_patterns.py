"""Whether two bindings can match one key, against trying all short keys."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.operator.patterns import is_pattern, matches, overlap

WORDS = ["a", "b"]
KEYS = [key for length in range(1, 6) for key in itertools.product(WORDS, repeat=length)]
patterns = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=4).map(tuple)


def leads(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """By the definition of a topic exchange."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return leads(pattern[1:], key) or (bool(key) and leads(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and leads(pattern[1:], key[1:])


@given(patterns, patterns)
def test_patterns_overlap_where_some_key_is_matched_by_both(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    expected = any(leads(one, key) and leads(other, key) for key in KEYS)
    # `#` alone matches the empty key, too, which nobody has; with short keys both agree.
    assert overlap(".".join(one), ".".join(other)) == (expected or (set(one) | set(other) == {"#"}))


@given(patterns, st.sampled_from(KEYS))
def test_a_pattern_matches_what_the_exchange_would_lead(pattern: tuple[str, ...], key: tuple[str, ...]) -> None:
    assert matches(".".join(pattern), ".".join(key)) == leads(pattern, key)


@pytest.mark.parametrize("key", ["a", "a.b", "reports.*", "#", "a.#.b", "A-b_C.9", "a" * 64])
def test_what_is_a_key(key: str) -> None:
    assert is_pattern(key)


@pytest.mark.parametrize("key", ["", ".", "a..b", "a.", "a b", "a*", "ä", "a" * 65, ".".join("a" * 9), "a/b", "a\n"])
def test_what_is_none(key: str) -> None:
    assert not is_pattern(key)


def test_long_patterns_take_no_time() -> None:
    assert not overlap(".".join("#a" * 4), ".".join("#b" * 4))
