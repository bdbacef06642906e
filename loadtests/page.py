"""The live page in a real browser under load: frames, the browser's and the tap's memory, screenshots.

    python loadtests/page.py --rate 300 --seconds 600
    python loadtests/page.py --made-up --rate 1000 --seconds 600

A deployment of its own under an open load; the rate that the machine really served is told. With `--made-up` there is
no deployment: the page's own parts of the tap are fed with made-up messages (services/tap/tests/page_bench.py), for
rates that the machine cannot serve. Writes `page.json` and screenshots into `--out`. A frame is long when the browser
drew nothing for 50 ms. The exit status is 1 where a frame in a hundred was long or memory grew.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from streaming.memory import MIB, Unmeasurable, containers
from trial.browser import chromium
from trial.deployment import ROOT, own, say
from trial.load import Load, arrivals

TABLE = "version: 1\nroutes:\n  - { name: default }\n"
TARGETS = [
    "/whoami",
    "/catalog/whoami",
    "/bytes/2048",
    "/whoami",
    "/reports/work?ms=12",
    "/work?ms=3",
    "/catalog/bytes/512",
]
SLICE = 10
# What a page may hold more at the end than when it was warm.
GROWTH = 1.25
# Times of frames come from the browser's own clock; only sums are kept.
FRAMES = """
() => {
  const seen = globalThis.frames_ = { count: 0, long: 0, worse: 0, most: 0, since: performance.now() };
  let last = performance.now();
  const next = now => {
    const length = now - last;
    last = now;
    seen.count++;
    seen.long += length > 50;
    seen.worse += length > 100;
    seen.most = Math.max(seen.most, length);
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
}
"""
TAKEN = """
() => {
  const { count, long, worse, most, since } = globalThis.frames_, seconds = (performance.now() - since) / 1000;
  Object.assign(globalThis.frames_, { count: 0, long: 0, worse: 0, most: 0, since: performance.now() });
  return { fps: count / seconds, frames: count, long, worse, most };
}
"""


class Driver:
    """The load, in a thread of its own: slices of an open loop, of which only counts are kept."""

    def __init__(self, url: str, rate: float, targets: list[str]) -> None:
        self._url, self._rate, self._targets = url, rate, targets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.endings: Counter[str] = Counter()

    def __enter__(self) -> "Driver":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        load, number, targets = Load(self._url), 0, self._targets
        while not self._stop.is_set():
            number += 1
            answers = await load.run(
                arrivals(self._rate, SLICE, number), lambda n: (targets[n % len(targets)], str(n), "")
            )
            self.endings.update(answer.reason or str(answer.status) for answer in answers)


def measure(options: argparse.Namespace, url: str, memory: Callable[[], int]) -> dict[str, Any]:
    """One browser looks at the page for so many seconds. ``memory`` is the tap's, in bytes."""
    samples: list[dict[str, Any]] = []
    with chromium() as browser, browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.evaluate(FRAMES)
        tools = context.new_cdp_session(page)
        tools.send("Performance.enable")
        end = time.monotonic() + options.seconds
        before: dict[str, Any] | None = None
        print(
            f"{'seconds':>8}{'req/s':>8}{'fps':>7}{'long':>6}{'worst':>9}{'heap':>10}{'nodes':>7}{'tap':>10}",
            flush=True,
        )
        while time.monotonic() < end:
            page.wait_for_timeout(1000 * min(SLICE, max(end - time.monotonic(), 1)))
            # Frames first: collecting garbage for the next figure stops the browser.
            frames = page.evaluate(TAKEN)
            tools.send("HeapProfiler.collectGarbage")
            told = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
            live = page.evaluate("fetch('/api/live').then(answer => answer.json())")
            served = (
                0.0 if before is None else (live["requests"] - before["requests"]) / (live["at"] - before["at"]) * 1000
            )
            before = live
            page.evaluate("() => { globalThis.frames_.since = performance.now(); globalThis.frames_.most = 0 }")
            sample = frames | {
                "seconds": round(options.seconds - (end - time.monotonic())),
                "rate": round(served, 1),
                "heap": int(told["JSHeapUsedSize"]),
                "nodes": int(told["Nodes"]),
                "tap": memory(),
            }
            samples.append(sample)
            print(
                f"{sample['seconds']:>8}{sample['rate']:>8.0f}{sample['fps']:>7.1f}{sample['long']:>6}"
                f"{sample['most']:>6.0f} ms{sample['heap'] / MIB:>6.1f} MiB{sample['nodes']:>7}"
                f"{sample['tap'] / MIB:>6.0f} MiB",
                flush=True,
            )
        screenshots(page, options.out)
    return {"samples": samples, "errors": errors}


def screenshots(page: Page, out: Path) -> None:
    page.emulate_media(color_scheme="light")
    page.screenshot(path=out / "page-light.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=out / "page-dark.png")
    page.emulate_media(color_scheme="light")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#story .steps").wait_for()
    page.screenshot(path=out / "story.png")
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 780})
    page.mouse.move(0, 0)
    page.keyboard.press("Escape")
    page.wait_for_timeout(1500)
    page.screenshot(path=out / "page-phone.png")


@contextmanager
def made_up(rate: float, seconds: float) -> Iterator[tuple[str, Callable[[], int]]]:
    """The page's parts in a process of their own."""
    paths = ("wire", "services/runtime", "services/tap")
    bench = subprocess.Popen(
        [sys.executable, "services/tap/tests/page_bench.py", "--rate", str(rate), "--seconds", str(seconds + 60)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ":".join(str(ROOT / path) for path in paths)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert bench.stderr is not None
        url = bench.stderr.readline().strip()
        if not url.startswith("http"):
            raise Unmeasurable(f"the made-up tap does not start: {url}")
        time.sleep(1)

        def memory() -> int:
            lines = Path(f"/proc/{bench.pid}/status").read_text().splitlines()
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

        yield url, memory
    finally:
        bench.terminate()
        bench.wait()


def judge(told: dict[str, Any]) -> dict[str, Any]:
    """Of the samples but for the first, which warm the page up. Memory: the last third beside the second one."""
    samples = told["samples"][1:] or told["samples"]
    third = max(len(samples) // 3, 1)
    middle, last = samples[third : 2 * third] or samples, samples[-third:]

    def growth(name: str) -> float:
        return float(sum(s[name] for s in last) / len(last) / (sum(s[name] for s in middle) / len(middle)))

    frames = sum(sample["frames"] for sample in samples)
    return {
        "rate": round(sum(s["rate"] for s in samples) / len(samples), 1),
        "fps": round(sum(s["fps"] for s in samples) / len(samples), 1),
        "frames": frames,
        "long": sum(s["long"] for s in samples),
        "longer_than_100_ms": sum(s["worse"] for s in samples),
        "worst_ms": round(max(s["most"] for s in samples), 1),
        "heap_growth": round(growth("heap"), 3),
        "tap_growth": round(growth("tap"), 3),
        "nodes": [samples[0]["nodes"], samples[-1]["nodes"]],
        "kept": not told["errors"]
        and sum(s["long"] for s in samples) <= frames / 100
        and growth("heap") <= GROWTH
        and growth("tap") <= GROWTH,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests in a second (default 1000)")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="what is asked for, in turn")
    parser.add_argument("--made-up", action="store_true", help="messages instead of a deployment")
    parser.add_argument("--build", action="store_true", help="build the images first")
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "page")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any]
    try:
        if options.made_up:
            with made_up(options.rate, options.seconds) as (url, memory):
                told = measure(options, url, memory)
        else:
            with own((), {"worker": options.workers}, TABLE, build=options.build) as deployment:
                (tap,) = containers(deployment.project, ("tap",))
                page = f"http://{deployment.compose('port', 'tap', '8081').strip()}/"
                say(f"the page is {page}")
                with Driver(deployment.url, options.rate, options.targets) as driver:
                    told = measure(options, page, lambda: tap.use().own)
                told["endings"] = driver.endings
    except Unmeasurable as error:
        print(f"page.py: {error}", file=sys.stderr)
        return 2
    told["summary"] = summary = judge(told)
    (options.out / "page.json").write_text(json.dumps({"asked": options.rate, **told}, indent=1))
    print(json.dumps(summary | ({"endings": told["endings"]} if "endings" in told else {})))
    return 0 if summary["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
