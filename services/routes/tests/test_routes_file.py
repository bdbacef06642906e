"""Files of routes: what they may say, and what each mistake is told as, with line and column."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.routes.document import RoutesError, load
from rabbitbal.routes.policy import Bots, Delivery, Hedge, Mode, Redeliver, Sticky
from rabbitbal.routes.question import question
from rabbitbal.routes.table import Table

ROOT = Path(__file__).parents[3]
LAST = "  - name: default\n"


def routes(text: str, *, defaults: str = "") -> Table:
    return load(f"version: 1\n{defaults}routes:\n{text}{LAST}".encode(), "routes.yaml")


def told(text: str | bytes) -> str:
    with pytest.raises(RoutesError) as caught:
        load(text if isinstance(text, bytes) else text.encode(), "routes.yaml")
    return str(caught.value)


def wrong(text: str, *, defaults: str = "") -> str:
    return told(f"version: 1\n{defaults}routes:\n{text}{LAST}")


def test_the_shipped_file_is_one_catch_all() -> None:
    table = load((ROOT / "compose" / "routes" / "routes.yaml").read_bytes(), "routes.yaml")
    assert [route.name for route in table.routes] == ["default"]
    assert table.warnings == ()


def test_everything_that_a_route_can_say() -> None:
    table = routes(
        """\
  - name: full
    match:
      host: ["*.Example.com", shop.test]
      path: [/shop/, /cart]
      path_regex: "^/[a-z]+"
      method: [GET, HEAD]
      headers: { X-Tenant: acme, User-Agent: { regex: "(?i)bot" } }
    to: shop.eu
    timeout: 500ms
    body_limit: 10MiB
    redeliver: always
    delivery: persistent
    hedge: { budget: 0.05, after: 250ms }
    sticky: { cookie: sid, issue: false }
"""
    )
    route = table.routes[0]
    assert str(route.match) == (
        "host *.example.com or shop.test, path /shop or /cart, path ~ ^/[a-z]+, method GET or HEAD, "
        "header X-Tenant: acme, header User-Agent ~ (?i)bot"
    )
    policy = route.policy
    assert (route.to, policy.timeout, policy.body_limit) == (("shop.eu",), 0.5, 10 * 1024 * 1024)
    assert (policy.redeliver, policy.delivery, policy.mode) == (Redeliver.ALWAYS, Delivery.PERSISTENT, Mode.ONE)
    assert policy.hedge == Hedge(0.05, 0.25)
    assert policy.sticky == Sticky("sid", None, False)
    assert route.line == 3
    asked = question("GET", b"/cart", [(b"host", b"a.example.com"), (b"x-tenant", b"acme"), (b"user-agent", b"GoBot")])
    assert table.find(asked) is route


def test_defaults_count_where_a_route_says_nothing() -> None:
    table = routes(
        "  - { name: a, match: { path: /a }, timeout: 5 }\n"
        "  - { name: b, match: { path: /b }, mode: first, to: [x, y] }\n",
        defaults="defaults: { timeout: 2m, redeliver: never }\n",
    )
    assert [route.policy.timeout for route in table.routes] == [5, 120, 120]
    assert {route.policy.redeliver for route in table.routes} == {Redeliver.NEVER}
    assert [route.policy.mode for route in table.routes] == [Mode.ONE, Mode.FIRST, Mode.ONE]


def test_suspects_are_served_unless_the_file_says_no() -> None:
    table = routes(
        "  - { name: a, match: { path: /a }, bots: refuse }\n  - { name: b, match: { path: /b }, bots: allow }\n"
    )
    assert [route.policy.bots for route in table.routes] == [Bots.REFUSE, Bots.ALLOW, Bots.ALLOW]
    table = routes("  - { name: a, match: { path: /a }, bots: allow }\n", defaults="defaults: { bots: refuse }\n")
    assert [route.policy.bots for route in table.routes] == [Bots.ALLOW, Bots.REFUSE]


def test_a_cookie_is_issued_unless_the_file_says_no() -> None:
    table = routes("  - { name: a, match: { path: /a }, sticky: { cookie: c } }\n")
    assert table.routes[0].policy.sticky == Sticky("c", None, True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "1:1: the file is empty"),
        (b"- a\n", "1:1: the file is not a mapping"),
        (b"\xff\xfe", "1:1: not UTF-8"),
        (b"version: 1\nab: \xff", "2:5: not UTF-8"),
        (b"version: [", "not YAML"),
        (b"version: 1\n\x00", "2:1: not YAML"),
        (b"!!python/object:os.system x", "has no meaning here"),
        (b"a: &a [*a]", "nested too deeply"),
        (b"version: 1\nroutes:\n  <<: {}\n", "3:3: a key must be a plain word"),
        (b"version: 2\nroutes: [{name: default}]", "1:10: version: must be 1"),
        (b"routes: [{name: default}]", "1:1: 'version' is missing"),
        (b"version: 1\nroutes: []", "2:9: routes: "),
        (b"version: 1\nroutes: [{}]", "2:10: routes[0]: 'name' is missing"),
        (b" " * (1024 * 1024 + 1), "larger than"),
        (b"version: 2030-99-99\nroutes: [{name: default}]", "1:10: "),
    ],
)
def test_what_is_no_table(text: bytes, problem: str) -> None:
    assert problem in told(text)


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("  - { name: a b, match: { path: /x } }\n", "3:13: routes[0].name: 'a b' is not well formed"),
        (
            "  - { name: a, match: { pth: /x } }\n",
            "3:25: routes[0].match.pth: 'pth' is not known; did you mean 'path'?",
        ),
        ("  - { name: a, match: { path: x } }\n", "3:31: routes[0].match.path: 'x' is not well formed"),
        ("  - { name: a, match: { host: 'a b' } }\n", "'a b' is not well formed"),
        (
            "  - { name: a, match: { path_regex: '(x' } }\n",
            "routes[0].match.path_regex[0]: not a pattern of RE2: missing )",
        ),
        ("  - { name: a, match: { headers: { X: { regex: 'a{9999}' } } } }\n", "not a pattern of RE2"),
        ("  - { name: a, match: { headers: { 'X Y': b } } }\n", "not well formed"),
        ("  - { name: a, match: { headers: { X: 1 } } }\n", "1 must be a text; put it in quotes"),
        ("  - { name: a, match: { path: /x }, to: a..b }\n", "'a..b' is not well formed"),
        ("  - { name: a, match: { path: /x }, to: [a, b] }\n", "mode one has one key, not 2"),
        ("  - { name: a, match: { path: /x }, mode: first, to: a }\n", "mode first needs a list of 2 to 8 keys, not 1"),
        ("  - { name: a, match: { path: /x }, mode: all, to: [a, a] }\n", "a key is there twice"),
        ("  - { name: a, match: { path: /x }, mode: all, to: { path: 2 } }\n", "mode all needs a list of keys"),
        ("  - { name: a, match: { path: /x }, to: { path: 9 } }\n", "routes[0].to.path"),
        ("  - { name: a, match: { path: /x }, mode: frist }\n", "must be 'one', 'first', 'all' or 'shadow'"),
        ("  - { name: a, match: { path: /x }, bots: ban }\n", "must be 'allow' or 'refuse'"),
        ("  - { name: a, match: { path: /x }, timeout: 1h }\n", "'1h' must be seconds, or read like 500ms, 30s or 5m"),
        ("  - { name: a, match: { path: /x }, timeout: 0 }\n", "3:46: routes[0].timeout: "),
        ("  - { name: a, match: { path: /x }, timeout: 3000 }\n", "1500"),
        ("  - { name: a, match: { path: /x }, timeout: .nan }\n", "routes[0].timeout: "),
        (
            "  - { name: a, match: { path: /x }, body_limit: 10MB }\n",
            "10MB' must be bytes, or read like 64KiB or 10MiB",
        ),
        ("  - { name: a, match: { path: /x }, sticky: {} }\n", "needs either a cookie or a header"),
        (
            "  - { name: a, match: { path: /x }, sticky: { cookie: a, header: b } }\n",
            "needs either a cookie or a header",
        ),
        ("  - { name: a, match: { path: /x }, sticky: { header: b, issue: true } }\n", "only a cookie can be issued"),
        ("  - { name: a, match: { path: /x }, mode: first, to: [a, b], hedge: {} }\n", "hedge goes with mode one only"),
        ("  - { name: a, match: { path: /x }, hedge: { budget: 2 } }\n", "routes[0].hedge.budget"),
        ("  - { name: a }\n", "3:5: routes[0]: this route matches everything"),
        (
            "  - { name: default, match: { path: /x } }\n",
            "4:11: routes[1].name: the name 'default' is taken by routes[0]",
        ),
        ("  - { name: a, name: b, match: { path: /x } }\n", "3:16: routes[0]: 'name' is there twice"),
    ],
)
def test_mistakes_have_their_place(route: str, problem: str) -> None:
    assert problem in wrong(route)


def test_the_last_route_must_match_everything() -> None:
    text = told("version: 1\nroutes:\n  - { name: a, match: { path: /x } }\n")
    assert text.startswith("routes.yaml:3:5: routes[0]: the last route must match everything")


def test_every_problem_is_told_in_the_order_of_the_text() -> None:
    lines = wrong("  - { name: a b, timeout: x }\n  - { name: b, to: '.' }\n").splitlines()
    assert [line.split(":")[1] for line in lines] == ["3", "3", "4"]


def test_many_problems_are_cut_short() -> None:
    text = wrong("".join(f"  - {{ name: 'a {number}', match: {{ path: /x }} }}\n" for number in range(60)))
    assert text.splitlines()[-1] == "routes.yaml: and 10 more"


def test_warnings_are_no_errors() -> None:
    table = routes(
        "  - { name: a, match: { path: /x } }\n"
        "  - { name: b, match: { path: /x/y } }\n"
        "  - { name: c, match: { path: /c }, mode: first, to: [c, d] }\n"
        "  - { name: d, match: { path: /d }, hedge: { budget: 0.5 } }\n"
    )
    assert [(warning.line, warning.text.split(":")[0]) for warning in table.warnings] == [
        (4, "never reached"),
        (5, "mode first copies every method, POST too"),
        (6, "a budget of 0.5 may send every request twice"),
    ]


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(text: bytes) -> None:
    with pytest.raises(RoutesError):
        load(b"x" + text, "routes.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=20,
    )
)
def test_no_value_in_a_route_does_more_than_be_refused(value: object) -> None:
    import yaml

    text = yaml.safe_dump({"version": 1, "routes": [{"name": "a", "match": value, "to": value, "hedge": value}]})
    with pytest.raises(RoutesError):
        load(text.encode(), "routes.yaml")
