"""Make the labelled log: real clients against a small site on the loopback, each with an address of its own.

    python loadtests/bots/record.py --tools /tmp/tools/bin/python

It takes three minutes and writes log.ndjson and clients.json beside the tap's tests. It needs Debian's chromium, curl,
wget, gobuster, dirb, ffuf, wfuzz, wapiti, sqlmap, whatweb, httrack, siege and linkchecker, and scrapy in the Python
that --tools names. Nothing but 127.0.0.1 is asked, for a bounded time.
"""

import argparse
import asyncio
import contextlib
import json
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from playwright.async_api import async_playwright
from starlette.types import Scope

sys.path.insert(0, str(Path(__file__).parent.parent))

from bots.sessions import SESSIONS, Ground, Session
from bots.site import line, site

ROOT = Path(__file__).parents[2]
DATA = ROOT / "services" / "tap" / "tests" / "data" / "bots"
# Lines kept of one client: a scanner says nothing new after these.
MOST_LINES = 150
AT_ONCE = 6
WORDS = 140


def address(number: int) -> str:
    return f"203.0.113.{number + 1}"


@contextlib.contextmanager
def sockets(number: int) -> Iterator[list[socket.socket]]:
    """One for each client, as a client of one tool cannot be told from another's but by where it went."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(number):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one)
        yield found


async def record(sessions: list[Session], tools: str, words: Path) -> tuple[list[str], bytes]:
    lines: list[str] = []
    robots = [b""]
    kept: Counter[str] = Counter()
    began = time.monotonic()
    with sockets(len(sessions)) as listening, tempfile.TemporaryDirectory() as directory:
        ports = {one.getsockname()[1]: address(number) for number, one in enumerate(listening)}

        def tell(scope: Scope, status: int, kind: str, body: bytes) -> None:
            client = ports[scope["server"][1]]
            kept[client] += 1
            if kept[client] <= MOST_LINES:
                lines.append(line(scope, time.monotonic() - began, client, status, kind))
            robots[0] = body or robots[0]

        server = uvicorn.Server(uvicorn.Config(site(tell), log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=listening))
        few = asyncio.Semaphore(AT_ONCE)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path="/usr/bin/chromium",
                args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
            )  # fmt: skip
            ground = Ground(browser, tools, Path(directory), str(words))

            async def run(session: Session, port: int) -> None:
                # People take their time; machines take turns, so that they do not starve them.
                async with few if session.label in ("bot", "crawler") else contextlib.nullcontext():
                    try:
                        await session.run(ground, f"http://127.0.0.1:{port}")
                    except Exception as error:
                        print(f"{session.tool}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
                print(f"{kept[ports[port]]:5} requests  {session.label:8}{session.tool}", flush=True)

            await asyncio.gather(*(run(session, port) for session, port in zip(sessions, ports, strict=True)))
            await browser.close()
        server.should_exit = True
        await serving
    return lines, robots[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", required=True, help="a Python that has scrapy")
    parser.add_argument("--words", default="/usr/share/dirb/wordlists/small.txt", help="list of words for the scanners")
    parser.add_argument("--only", default="", help="record the clients whose names match this pattern alone")
    parser.add_argument("--out", type=Path, default=DATA, help="directory of the log")
    options = parser.parse_args()
    sessions = [session for session in SESSIONS if re.search(options.only, session.tool)]
    out: Path = options.out
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as words:
        chosen = [word for word in Path(options.words).read_text(errors="replace").splitlines() if word.strip()]
        words.write("\n".join(chosen[:: max(1, len(chosen) // WORDS)][:WORDS]) + "\n")
        words.flush()
        lines, robots = asyncio.run(record(sessions, options.tools, Path(words.name)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "log.ndjson").write_text("".join(f"{one}\n" for one in lines))
    (out / "robots.txt").write_bytes(robots)
    clients = {
        address(number): {"tool": session.tool, "label": session.label, "held": session.held}
        for number, session in enumerate(sessions)
    }
    (out / "clients.json").write_text(json.dumps(clients, indent=1) + "\n")
    print(f"{len(lines)} lines, {(out / 'log.ndjson').stat().st_size} bytes")


if __name__ == "__main__":
    main()
