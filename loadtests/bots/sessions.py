"""Who visits the site: each client with its label, and how it is run."""

import asyncio
import re
import shlex
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser

from bots import machines, people
from bots.machines import CHROME, FULL, SIGNED

SECONDS = 110.0
_WORD = re.compile("URL|WORDS|DIR|BROWSER")


@dataclass(frozen=True)
class Session:
    """``held`` ones are not looked at when weights and threshold are chosen."""

    tool: str
    label: str
    held: bool
    run: Callable[["Ground", str], Awaitable[None]]


@dataclass
class Ground:
    """What sessions run on."""

    browser: Browser
    tools: str
    cwd: Path
    words: str


def tool(line: str, seconds: float = 60.0) -> Callable[[Ground, str], Awaitable[None]]:
    """A command; URL, WORDS, DIR and BROWSER, the name of one, are filled in."""

    async def run(ground: Ground, url: str) -> None:
        with tempfile.TemporaryDirectory(dir=ground.cwd) as directory:
            known = {"URL": url, "WORDS": ground.words, "DIR": directory, "BROWSER": CHROME}
            words = [_WORD.sub(lambda found: known[found[0]], word) for word in shlex.split(line)]
            await machines.command(*words, cwd=Path(directory), seconds=seconds)

    return run


def spider(**settings: object) -> Callable[[Ground, str], Awaitable[None]]:
    return lambda ground, url: machines.scrapy(ground.tools, url, ground.cwd, 90, **settings)


def person(who: people.Person, seed: int, agent: str = people.DESKTOP) -> Callable[[Ground, str], Awaitable[None]]:
    return lambda ground, url: people.visit(ground.browser, who, url, SECONDS, seed, agent)


def household(*seeds: int) -> Callable[[Ground, str], Awaitable[None]]:
    """Several people behind one address."""

    async def run(ground: Ground, url: str) -> None:
        readers = (people.visit(ground.browser, people.reader(3, 10), url, SECONDS, s, people.DESKTOP) for s in seeds)
        await asyncio.gather(*readers)

    return run


def api(path: str, pause: float, agent: str) -> Callable[[Ground, str], Awaitable[None]]:
    return lambda ground, url: people.api(url, SECONDS, path, pause, agent)


SESSIONS = [
    Session("reader", "human", False, person(people.reader(3, 12), 1)),
    Session("reader", "human", True, person(people.reader(3, 12), 2)),
    Session("reader, mobile", "human", False, person(people.reader(2, 9), 3, people.MOBILE)),
    Session("reader, mobile", "human", True, person(people.reader(2, 9), 4, people.MOBILE)),
    Session("fast reader", "human", False, person(people.reader(0.7, 2), 5)),
    Session("fast reader", "human", True, person(people.reader(0.7, 2), 6)),
    Session("page that polls", "human", False, person(people.watcher, 7)),
    Session("page that polls", "human", True, person(people.watcher, 8, people.MOBILE)),
    Session("shopper", "human", False, person(people.shopper, 9)),
    Session("shopper", "human", True, person(people.shopper, 10)),
    Session("collector of tabs", "human", True, person(people.collector, 11)),
    Session("reloader", "human", False, person(people.reloader, 12)),
    Session("reloader", "human", True, person(people.reloader, 13)),
    Session("typist", "human", False, person(people.typist, 14)),
    Session("typist", "human", True, person(people.typist, 15)),
    Session("three behind one address", "human", False, household(16, 17, 18)),
    Session("five behind one address", "human", True, household(19, 20, 21, 22, 23)),
    Session("API client, pages", "api", False, api("/api/items?page={}", 2.0, "python-httpx/0.28.1")),
    Session("API client, items", "api", True, api("/api/items/{}", 1.5, "okhttp/4.12.0")),
    Session("API client, server side", "api", False, api("/api/items/{}", 0.5, "node")),
    Session("monitor", "api", True, api("/api/status", 5.0, "curl/8.5.0")),
    Session("linkchecker", "crawler", False, tool("linkchecker -t2 --no-status URL/")),
    Session("linkchecker, one thread", "crawler", True, tool("linkchecker -t1 --no-status URL/")),
    Session(
        "scrapy, signed, obeys", "crawler", False, spider(ROBOTSTXT_OBEY=True, USER_AGENT=SIGNED, DOWNLOAD_DELAY=0.3)
    ),
    Session(
        "scrapy, signed, obeys, slow", "crawler", True, spider(ROBOTSTXT_OBEY=True, USER_AGENT=SIGNED, DOWNLOAD_DELAY=2)
    ),
    Session(
        "scrapy, signed, disobeys", "bot", True, spider(ROBOTSTXT_OBEY=False, USER_AGENT=SIGNED, DOWNLOAD_DELAY=0.3)
    ),
    Session("scrapy, obeys", "bot", False, spider(ROBOTSTXT_OBEY=True)),
    Session("scrapy, obeys, slow", "bot", True, spider(ROBOTSTXT_OBEY=True, DOWNLOAD_DELAY=2)),
    Session("scrapy, disobeys", "bot", False, spider(ROBOTSTXT_OBEY=False)),
    Session("scrapy, as a browser", "bot", True, spider(ROBOTSTXT_OBEY=False, USER_AGENT=CHROME, DOWNLOAD_DELAY=1)),
    Session("wget --mirror", "bot", False, tool("wget -q --mirror -P DIR URL/")),
    Session("wget, as a browser", "bot", True, tool("wget -q --mirror -e robots=off -U BROWSER -w 1 -P DIR URL/")),
    Session("httrack", "bot", True, tool("httrack URL/ -O DIR -q -I0 -%v0")),
    Session("gobuster", "bot", False, tool("gobuster dir -q -u URL -w WORDS")),
    Session("gobuster, slow", "bot", True, tool("gobuster dir -q -t 1 --delay 500ms -a BROWSER -u URL -w WORDS")),
    Session("dirb", "bot", False, tool("dirb URL/ WORDS -S -r -w")),
    Session("ffuf", "bot", False, tool("ffuf -s -t 4 -p 0.2 -u URL/FUZZ -w WORDS")),
    Session(
        "ffuf, slow, as a browser",
        "bot",
        True,
        tool("ffuf -s -t 1 -p 1 -H 'User-Agent: BROWSER' -H 'Accept-Language: en' -u URL/FUZZ -w WORDS"),
    ),
    Session("wfuzz", "bot", True, tool("wfuzz -w WORDS --hc 404 URL/FUZZ")),
    Session(
        "wapiti", "bot", True, tool("wapiti -u URL/ --flush-session -m file,xss,exec --max-scan-time 40 -o DIR/report")
    ),
    Session("sqlmap", "bot", False, tool("sqlmap -u URL/search?q=1 --batch --output-dir DIR", seconds=45)),
    Session(
        "sqlmap, as a browser",
        "bot",
        True,
        tool("sqlmap -u URL/search?q=1 --batch --random-agent --delay 0.5 --output-dir DIR", seconds=45),
    ),
    Session("whatweb", "bot", True, tool("whatweb -a 3 -q URL/")),
    Session("siege", "bot", True, tool("siege -c 2 -d 1 -t 30S URL/articles")),
    Session("curl in a loop", "bot", False, lambda ground, url: machines.curl(url, ground.cwd, 0.2, None)),
    Session("curl, as a browser", "bot", True, lambda ground, url: machines.curl(url, ground.cwd, 1.0, CHROME)),
    Session(
        "python-requests",
        "bot",
        False,
        lambda ground, url: machines.scrape(url, 80, 0.3, {"User-Agent": "python-requests/2.32.3"}),
    ),
    Session(
        "script with a browser's name",
        "bot",
        False,
        lambda ground, url: machines.scrape(url, 90, 0.8, {"User-Agent": CHROME}),
    ),
    Session(
        "script with all of a browser's fields", "bot", False, lambda ground, url: machines.scrape(url, 90, 0.5, FULL)
    ),
    Session(
        "the same with a referer", "bot", True, lambda ground, url: machines.scrape(url, 90, 0.5, FULL, referer=True)
    ),
    Session(
        "the same, 4 s a page", "bot", True, lambda ground, url: machines.scrape(url, SECONDS, 4.0, FULL, referer=True)
    ),
    Session(
        "API, item by item, fast",
        "bot",
        False,
        lambda ground, url: machines.enumerate_api(url, 0.05, "python-httpx/0.28.1"),
    ),
    Session(
        "API, item by item", "bot", True, lambda ground, url: machines.enumerate_api(url, 0.4, "Go-http-client/1.1")
    ),
    Session("passwords, one after the other", "bot", True, lambda ground, url: machines.stuff(url, 1.0)),
    Session("browser that is driven, fast", "bot", False, lambda ground, url: machines.drive(ground.browser, url, 0.2)),
    Session("browser that is driven", "bot", True, lambda ground, url: machines.drive(ground.browser, url, 2.0)),
]
