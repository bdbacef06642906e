"""Clients that are bots: real crawlers and scanners, and scripts such as people write."""

import asyncio
import re
import tempfile
import time
from pathlib import Path

import httpx
from playwright.async_api import Browser

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
FULL = {
    "User-Agent": CHROME,
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.9",
    "Accept-Encoding": "gzip, deflate",
}
SIGNED = "Mozilla/5.0 (compatible; ExampleBot/1.0; +https://example.com/bot.html)"
_LINK = re.compile(r'href="?(/[^" >#]*)')

SPIDER = """\
import scrapy
from scrapy.crawler import CrawlerProcess
class Spider(scrapy.Spider):
    name = "spider"
    start_urls = ["{url}/"]
    def parse(self, response):
        if hasattr(response, "css"):
            for link in response.css("a::attr(href)").getall():
                yield response.follow(link, self.parse)
process = CrawlerProcess({settings})
process.crawl(Spider)
process.start()
"""


async def command(*words: str, cwd: Path, seconds: float) -> None:
    """Run a tool until it ends, or for so long."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()


async def scrapy(python: str, url: str, cwd: Path, seconds: float, **settings: object) -> None:
    said = {"LOG_ENABLED": False, "TELNETCONSOLE_ENABLED": False, "CLOSESPIDER_PAGECOUNT": 150, **settings}
    with tempfile.TemporaryDirectory(dir=cwd) as directory:
        # In a file: scrapy reads the source of what it calls.
        spider = Path(directory) / "spider.py"
        spider.write_text(SPIDER.format(url=url, settings=repr(said)))
        await command(python, str(spider), cwd=Path(directory), seconds=seconds)


async def scrape(
    url: str, seconds: float, pause: float, fields: dict[str, str], *, referer: bool = False, most: int = 120
) -> None:
    """Follow all links, page by page."""
    end, todo, done = time.monotonic() + seconds, ["/"], {"/"}
    async with httpx.AsyncClient(base_url=url, headers=fields) as client:
        came = ""
        while todo and time.monotonic() < end and len(done) < most:
            path = todo.pop(0)
            answer = await client.get(path, headers={"Referer": url + came} if referer and came else {})
            came = path
            for link in _LINK.findall(answer.text):
                if link not in done and not link.startswith("/static"):
                    done.add(link)
                    todo.append(link)
            await asyncio.sleep(pause)


async def enumerate_api(url: str, pause: float, agent: str, most: int = 120) -> None:
    """Take all items, one after the other."""
    async with httpx.AsyncClient(base_url=url, headers={"User-Agent": agent}) as client:
        for number in range(1, most + 1):
            await client.get(f"/api/items/{number}")
            await asyncio.sleep(pause)


async def stuff(url: str, pause: float, most: int = 60) -> None:
    """Try one password after the other, as a browser would send them."""
    async with httpx.AsyncClient(base_url=url, headers={**FULL, "Referer": f"{url}/login"}) as client:
        for number in range(most):
            await client.post("/login", data={"user": f"user{number}"})
            await asyncio.sleep(pause)


async def drive(browser: Browser, url: str, pause: float, most: int = 45) -> None:
    """A real browser that a program drives through all articles."""
    context = await browser.new_context(user_agent=CHROME)
    try:
        page = await context.new_page()
        for number in range(1, most + 1):
            await page.goto(f"{url}/articles/{number}")
            await page.wait_for_timeout(pause * 1000)
    finally:
        await context.close()


async def curl(url: str, cwd: Path, pause: float, agent: str | None, most: int = 60) -> None:
    for number in range(1, most + 1):
        named = ["-A", agent] if agent else []
        await command("curl", "-s", "-o", "/dev/null", *named, f"{url}/articles/{number}", cwd=cwd, seconds=5)
        await asyncio.sleep(pause)
