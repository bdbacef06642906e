"""The index finds what asking each route in turn would find; keys; explanations; routes behind wider ones."""

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.routes.match import Header, Match
from rabbitbal.routes.policy import Policy
from rabbitbal.routes.question import Question, question
from rabbitbal.routes.table import BUILT_IN, LONGEST_KEY, Route, Table, path_key, shadows

HOSTS = ["a", "b.a", "c.b.a", "*.a", "*.b.a", "d"]
PREFIXES = ["", "/x", "/x/y", "/x/y/z", "/xy", "/w"]
PATHS = ["/", "/x", "/x/", "/x/y", "/x/y/z/1", "/xy", "/xyz", "/w/v", "*", "", "//x", "/" * 500]

matches = st.builds(
    Match,
    hosts=st.lists(st.sampled_from(HOSTS), max_size=2).map(tuple),
    prefixes=st.lists(st.sampled_from(PREFIXES), max_size=2).map(tuple),
    patterns=st.lists(st.sampled_from([re2.compile("^/x"), re2.compile("z")]), max_size=1).map(tuple),
    methods=st.lists(st.sampled_from(["GET", "PUT"]), max_size=1).map(tuple),
    headers=st.lists(
        st.sampled_from([Header("X-A", "1", None), Header("X-B", None, re2.compile("q"))]), max_size=1
    ).map(tuple),
)
questions = st.builds(
    Question,
    method=st.sampled_from(["GET", "PUT", "POST"]),
    host=st.sampled_from(["a", "b.a", "c.b.a", "z.c.b.a", "d", "", "x" + ".a" * 300]),
    path=st.sampled_from(PATHS),
    fields=st.sampled_from([[], [(b"x-a", b"1")], [(b"X-B", b"aqb"), (b"x-a", b"2"), (b"X-A", b"1")]]),
)


def table(*found: Match) -> Table:
    routes = [Route(f"r{number}", match, Policy(), (f"k{number}",)) for number, match in enumerate(found)]
    return Table((*routes, Route("last", Match(), Policy(), ("default",))))


@given(st.lists(matches, max_size=12), questions)
def test_the_first_route_that_matches_is_found(found: list[Match], asked: Question) -> None:
    routes = table(*found)
    expected = next(route for route in routes.routes if route.match.holds(asked))
    assert routes.find(asked) is expected
    steps = routes.explain(asked)
    assert steps[-1].route is expected
    assert all(step.why for step in steps)
    assert [step.matched for step in steps] == [False] * (len(steps) - 1) + [True]


@given(matches, matches, questions)
def test_a_route_that_is_called_unreachable_is(earlier: Match, later: Match, asked: Question) -> None:
    """The warning may miss one, and is never wrong."""
    if shadows(earlier, later) and later.holds(asked):
        assert earlier.holds(asked)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Match(), Match(prefixes=("/x",))),
        (Match(prefixes=("/x",)), Match(prefixes=("/x/y",), methods=("GET",))),
        (Match(hosts=("*.a",)), Match(hosts=("b.a", "*.b.a"))),
    ],
)
def test_plain_cases_of_unreachable_routes_are_known(earlier: Match, later: Match) -> None:
    assert shadows(earlier, later)
    assert not shadows(later, earlier)


@pytest.mark.parametrize(
    ("path", "depth", "key"),
    [
        ("/reports/2024/x", 2, "reports.2024"),
        ("/a", 3, "a"),
        ("/", 2, "root"),
        ("", 1, "root"),
        ("*", 1, "root"),
        ("//a", 2, "a"),
        ("/a b.c/%20", 2, "a_b_c._20"),
        ("/" + "x" * 100, 1, "x" * 64),
        ("/é", 1, "_"),
    ],
)
def test_words_of_a_path(path: str, depth: int, key: str) -> None:
    assert path_key(path, depth) == key


@given(st.text(max_size=600), st.integers(1, 8))
def test_a_key_of_any_path_is_well_formed(path: str, depth: int) -> None:
    key = path_key(path, depth)
    assert 0 < len(key) <= LONGEST_KEY
    assert all(
        (word and len(word) <= 64 and word.replace("-", "").replace("_", "").isalnum()) or set(word) <= {"_", "-"}
        for word in key.split(".")
    )


def test_the_built_in_table_takes_everything_to_the_default_pool() -> None:
    asked = question("GET", b"/x", [])
    assert BUILT_IN.find(asked).keys(asked) == ("default",)
