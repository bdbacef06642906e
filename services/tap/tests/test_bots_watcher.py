"""What the tap counts of each client: once for each request, and as what it is."""

import pytest

from rabbitbal.tap.bots import robots as robots_module
from rabbitbal.tap.bots.agents import Calling, agent_of, poses
from rabbitbal.tap.bots.history import Count
from rabbitbal.tap.bots.probes import Probes, shipped
from rabbitbal.tap.bots.robots import Robots
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason
from tests.bots_clients import BROWSER, CHROME, SIGNED, Clients

ROBOTS = b"User-agent: *\nDisallow: /private/\nDisallow: /cart\n"


@pytest.fixture
def clients() -> Clients:
    return Clients()


def counted(clients: Clients, count: Count, client: str = "203.0.113.1") -> int:
    judged = clients.scorer.look(client)
    return 0 if judged is None else judged.facts[count]


# --- once for each request


@pytest.mark.parametrize("leg", [Leg.HEDGE, Leg.SHADOW, Leg.ALL])
def test_a_copy_is_no_request_of_a_client(clients: Clients, leg: Leg) -> None:
    """Nor one that is sent or read a second time, or that an operator replays."""
    clients.ask(leg=leg, group="g")
    clients.ask("/.env", status=404, edge=topology.replayer("a1b2"))
    clients.ask(attempt=2)
    clients.ask(redelivered=True)
    assert (counted(clients, Count.REQUESTS), len(clients.scorer)) == (0, 0)


def test_of_copies_to_several_pools_the_first_counts(clients: Clients) -> None:
    """They have a group in common."""
    for group in ("a", "a", "b", "b", "b"):
        clients.ask(leg=Leg.FIRST, group=group)
    assert counted(clients, Count.REQUESTS) == 2


def test_a_client_is_told_by_its_address(clients: Clients) -> None:
    """Of several addresses, the first; what is no address is nobody."""
    clients.ask(client="203.0.113.9, 10.0.0.1")
    clients.ask(client="unknown")
    clients.ask(client="'; drop table")
    assert counted(clients, Count.REQUESTS, "203.0.113.9") == 1
    assert len(clients.scorer) == 1


def test_times_are_those_at_which_requests_were_sent(clients: Clients) -> None:
    """A tap that was away reads ten minutes in a second, and takes nobody for fast."""
    for number in range(60):
        clients.now += 10
        clients.ask(f"/articles/{number % 5}")
    assert not {"rate", "fanout"} & clients.signals().keys()
    clients.now += 130
    for number in range(60):
        clients.now += 0.05
        clients.ask(f"/articles/{number % 5}")
    assert "rate" in clients.signals()


# --- as what it is


def test_a_browser_with_a_warm_cache_is_no_suspect(clients: Clients) -> None:
    """It sends what browsers send, and follows links."""
    for number in range(30):
        clients.now += 3
        clients.ask(f"/articles/{number}", fields={**BROWSER, "Referer": "http://shop.test/"})
    assert clients.judge() == []


def test_a_page_that_polls_is_no_suspect(clients: Clients) -> None:
    """Twice a second, for as long as it likes."""
    for _ in range(500):
        clients.now += 0.5
        clients.ask("/api/status", kind="application/json", fields={**BROWSER, "Referer": "http://shop.test/live"})
    assert clients.judge() == []


def test_what_a_browser_sends_and_a_script_does_not_is_counted(clients: Clients) -> None:
    """Also where the script calls itself a browser."""
    for number in range(10):
        clients.ask(f"/{number}", fields={"User-Agent": CHROME})
    assert counted(clients, Count.LACKING) == 30
    assert counted(clients, Count.POSING) == 10
    assert {"headers", "posing"} <= clients.signals().keys()


@pytest.mark.parametrize(
    "path", ["/.env", "/.git/config", "/wp-login.php", "/phpmyadmin/", "/backup.sql", "/cgi-bin/x"]
)
def test_what_is_here_is_no_guess(clients: Clients, path: str) -> None:
    """A site that has such a page is asked for it by people."""
    clients.ask(path, status=200)
    assert counted(clients, Count.GUESSES) == 0
    clients.ask(path, status=404)
    assert counted(clients, Count.GUESSES) == 1


@pytest.mark.parametrize(
    "path", ["/", "/environment", "/git", "/articles/1", "/admin-guide", "/a.pdf", "/login", "/api/v1"]
)
def test_ordinary_paths_are_no_guesses(path: str) -> None:
    """Even where they are not here."""
    assert not shipped().guesses(path)


@pytest.mark.parametrize(
    "target",
    [
        "/a?file=../../etc/passwd",
        "/..%2f..%2fetc/hosts",
        "/a?id=1%20UNION%20SELECT%20password",
        "/a?id=1'+or+'1'='1",
        "/a?id=1+and+1=1",
        "/a?q=%3Cscript%3Ealert(1)",
        "/a?q=${jndi:ldap://x}",
        "/a?x=;cat+/a",
        "/a?id=1+AND+SLEEP(5)",
    ],
)
def test_an_attack_is_one_whatever_is_answered(clients: Clients, target: str) -> None:
    """In the path or in the query."""
    clients.ask(target, status=200)
    assert counted(clients, Count.ATTACKS) == 1


@pytest.mark.parametrize(
    "target",
    [
        "/search?q=select+a+hat+from+the+shelf",
        "/search?q=o%27neill+and+sons",
        "/search?q=rock+%26+roll",
        "/a?next=/b&x=1;y=2",
        "/a?q=C%23+or+Java",
        "/files/report..pdf",
        "/a?price=10-20&sort=-date",
        "/a?q=1+or+2+rooms",
    ],
)
def test_ordinary_queries_are_no_attacks(target: str) -> None:
    """People search for odd things."""
    assert not shipped().attacks(target)


def test_a_list_of_probes_that_is_none_is_refused() -> None:
    """With its line."""
    with pytest.raises(ValueError, match="line 2"):
        Probes("# a comment\n^/x\n")


def test_no_pattern_takes_long() -> None:
    """Whatever is asked for: only so much of it is looked at."""
    for text in (
        "/" + "../" * 400 + "!",
        "/?" + "'" * 2000,
        "/?q=" + "select " * 300,
        "/?" + "%20" * 700,
        "/" + "(" * 2000,
    ):
        shipped().guesses(text)
        shipped().attacks(text)


def test_of_who_is_refused_a_guess_counts_and_an_answer_does_not(clients: Clients) -> None:
    """Nobody knows what it would have been answered."""
    clients.ask("/.env", reason=Reason.SUSPECTED_BOT)
    clients.ask("/.env", reason=Reason.QUEUE_TIMEOUT)
    assert (counted(clients, Count.GUESSES), counted(clients, Count.ANSWERS)) == (1, 0)


def test_errors_of_the_application_count_and_ours_do_not(clients: Clients) -> None:
    """A proxy that has no worker makes nobody a bot."""
    for _ in range(20):
        clients.ask("/", reason=Reason.UNROUTABLE)
    assert counted(clients, Count.ERRORS) == 0
    for _ in range(20):
        clients.ask("/", status=500)
    assert counted(clients, Count.ERRORS) == 20


# --- robots.txt


def robots(clients: Clients, client: str = "203.0.113.200") -> None:
    clients.ask("/robots.txt", client, kind="text/plain", body=ROBOTS)


@pytest.mark.parametrize("fields", [{"User-Agent": SIGNED, "Accept-Language": "en"}, {"User-Agent": CHROME}, {}])
def test_a_program_is_held_to_robots_txt(clients: Clients, fields: dict[str, str]) -> None:
    """One that says it is one, or lacks what browsers send, though another client has asked for the rules."""
    robots(clients)
    clients.ask("/private/1", fields=fields)
    clients.ask("/public", fields=fields)
    assert counted(clients, Count.DISALLOWED) == 1


def test_people_go_where_crawlers_may_not(clients: Clients) -> None:
    """But for those who have read the rules: they are no people."""
    robots(clients)
    clients.ask("/cart")
    assert counted(clients, Count.DISALLOWED) == 0
    robots(clients, "203.0.113.1")
    clients.ask("/cart")
    judged = clients.scorer.look("203.0.113.1")
    assert judged is not None
    assert "1 request that robots.txt disallows, like /cart, which it has read" in [one.text for one in judged.findings]


def test_each_host_has_its_own_rules_until_it_has_none() -> None:
    """Whatever its case and port; a 404 ends them, and an error of the server changes nothing."""
    rules = Robots()
    rules.learn("Shop.test:8080", 200, ROBOTS)
    assert not rules.allow("shop.test", "bot", "/private/1")
    assert rules.allow("other.test", "bot", "/private/1")
    rules.learn("shop.test", 503, b"")
    rules.learn("shop.test", 404, b"")
    assert rules.allow("shop.test", "bot", "/private/1")


def test_rules_are_bounded_and_hostile_ones_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """In hosts, in bytes, in lines; and whatever is in them."""
    monkeypatch.setattr(robots_module, "MOST_HOSTS", 2)
    rules = Robots()
    for number in range(5):
        rules.learn(f"{number}.test", 200, b"User-agent: *\n" + b"Disallow: /x\n" * 100_000)
    assert len(rules) == 2
    rules.learn("[::1]", 200, b"\xff\xfe\x00" * 1000 + b"\nUser-agent: *\nDisallow: /a%zz[\nCrawl-delay: x\n")
    assert rules.allow("[::1]", "bot", "//[")
    assert rules.allow("[::1]", "bot\xff", "/\x80")


# --- what a client calls itself


@pytest.mark.parametrize(
    ("text", "calling"),
    [
        ("", Calling.NOTHING),
        (CHROME, Calling.BROWSER),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 Version/18.0 Safari/604.1",
            Calling.BROWSER,
        ),
        ("Mozilla/5.0 (Windows NT 10.0; rv:130.0) Gecko/20100101 Firefox/130.0", Calling.BROWSER),
        ("curl/8.5.0", Calling.PROGRAM),
        ("python-requests/2.32", Calling.PROGRAM),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Calling.CRAWLER),
        (SIGNED, Calling.CRAWLER),
        ("sqlmap/1.7#stable (https://sqlmap.org)", Calling.SCANNER),
        ("gobuster/3.5", Calling.SCANNER),
        ("MyShop/3 iOS", Calling.OTHER),
        ("\xff" * 300, Calling.OTHER),
    ],
)
def test_a_client_is_what_it_calls_itself(text: str, calling: Calling) -> None:
    """By the list that a package keeps, by ours, and by how crawlers sign."""
    assert agent_of(text).calling is calling


def test_who_signs_as_a_crawler_does_not_pose_as_a_browser() -> None:
    """Though some crawlers name a browser besides."""
    assert poses(CHROME)
    assert not poses(
        "Mozilla/5.0 AppleWebKit/537 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://x) Chrome/1 Safari/1"
    )
