"""Clients that are no bots: people in a real browser with time to think, and programs that use an API as they may."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import httpx
from playwright.async_api import Browser, Page

# What people's browsers send; a headless one would call itself so.
DESKTOP = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
MOBILE = DESKTOP.replace("X11; Linux x86_64", "Linux; Android 14; Pixel 8").replace("Safari", "Mobile Safari")

Person = Callable[[Page, str, float, random.Random], Awaitable[None]]


async def _follow(page: Page, chance: random.Random, selector: str = "a") -> None:
    """Click one of the links that are there."""
    links = page.locator(selector)
    number = await links.count()
    if number:
        await links.nth(chance.randrange(number)).click()


def reader(shortest: float, longest: float) -> Person:
    """Reads, and follows links."""

    async def read(page: Page, url: str, seconds: float, chance: random.Random) -> None:
        end = time.monotonic() + seconds
        await page.goto(url)
        while time.monotonic() < end:
            await page.wait_for_timeout(chance.uniform(shortest, longest) * 1000)
            await _follow(page, chance)

    return read


async def watcher(page: Page, url: str, seconds: float, chance: random.Random) -> None:
    """Leaves a page open that asks the server once a second."""
    await page.goto(url)
    await page.get_by_role("link", name="Live").click()
    await page.wait_for_timeout(seconds * 1000)


async def shopper(page: Page, url: str, seconds: float, chance: random.Random) -> None:
    """Searches, logs in, looks into the cart, which robots.txt disallows to crawlers."""
    end = time.monotonic() + seconds
    await page.goto(url)
    while time.monotonic() < end:
        await page.fill("input[name=q]", chance.choice(["shoes", "select a hat from", "o'neill and sons", "a & b"]))
        await page.keyboard.press("Enter")
        await page.wait_for_timeout(chance.uniform(2, 5) * 1000)
        await page.get_by_role("link", name="Cart").click()
        await page.wait_for_timeout(chance.uniform(2, 5) * 1000)
        await _follow(page, chance, "nav a")
        await page.wait_for_timeout(chance.uniform(1, 4) * 1000)


async def collector(page: Page, url: str, seconds: float, chance: random.Random) -> None:
    """Opens eight articles at once, each in a tab, and reads them."""
    await page.goto(f"{url}/articles")
    for _ in range(int(seconds / 30)):
        links = [await link.get_attribute("href") for link in (await page.locator("li a").all())]
        tabs = []
        for link in chance.sample([link for link in links if link], 8):
            tab = await page.context.new_page()
            tabs.append(tab)
            await tab.goto(url + link, referer=f"{url}/articles")
        await page.wait_for_timeout(25_000)
        for tab in tabs:
            await tab.close()


async def reloader(page: Page, url: str, seconds: float, chance: random.Random) -> None:
    """Waits for something, and loads the page again and again."""
    end = time.monotonic() + seconds
    await page.goto(f"{url}/articles/7")
    while time.monotonic() < end:
        await page.wait_for_timeout(chance.uniform(1, 3) * 1000)
        await page.reload()


async def typist(page: Page, url: str, seconds: float, chance: random.Random) -> None:
    """Types addresses, some of them wrong, and comes by no link."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await page.goto(
            url + chance.choice(["/", "/about", "/articles", f"/articles/{chance.randrange(80)}", "/abuot"])
        )
        await page.wait_for_timeout(chance.uniform(4, 9) * 1000)


async def visit(browser: Browser, person: Person, url: str, seconds: float, seed: int, agent: str) -> None:
    """One person in a browser's window of its own."""
    context = await browser.new_context(
        user_agent=agent.format(browser.version.partition(".")[0]),
        locale=random.Random(seed).choice(["en-GB", "de-DE", "fr-FR"]),
    )
    context.set_default_timeout(20_000)
    try:
        await person(await context.new_page(), url, seconds, random.Random(seed))
    finally:
        await context.close()


async def api(url: str, seconds: float, path: str, pause: float, agent: str) -> None:
    """A program that asks an API at its own pace; ``path`` may hold a number that counts."""
    end, number = time.monotonic() + seconds, 0
    async with httpx.AsyncClient(base_url=url, headers={"User-Agent": agent, "Accept": "application/json"}) as client:
        while time.monotonic() < end:
            number += 1
            await client.get(path.format(number % 15 + 1))
            await asyncio.sleep(pause)
