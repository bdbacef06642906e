"""What recording costs the tap for each request, in microseconds of processor time.

PYTHONPATH=wire:services/runtime:services/tap python services/tap/tests/recorder_bench.py
"""

import asyncio
import time
from collections.abc import Callable

from rabbitbal.tap.observation import Observation, observe
from rabbitbal.tap.recorder import Recorder
from rabbitbal.tap.recording import QUEUE, Wanted
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request, Response, encode_request, encode_response

ROUNDS = 10
NUMBER = QUEUE
FIELDS = [
    (b"Host", b"shop.example"),
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"Accept-Language", b"en-US,en;q=0.5"),
    (b"Cookie", b"session=6b1f0c9e2a7d4f58; theme=dark"),
    (b"X-Forwarded-For", b"203.0.113.7"),
    (b"X-Forwarded-Proto", b"https"),
    (b"Via", b"1.1 rabbitbal"),
]


def messages(size: int) -> list[tuple[Observation, Observation]]:
    """Requests, and answers of JSON of about so many bytes."""
    body = b'{"items": [%s]}' % b", ".join([b'{"id": 12345, "name": "a thing", "price": 12.5}'] * max(1, size // 48))
    fields = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
    found = []
    for number in range(NUMBER):
        name = f"{number:032x}"
        asked = Envelope(Kind.REQUEST, name, "edge-1", "response.edge-1", route="default", sent=1000)
        told = Envelope(Kind.RESPONSE, name, "worker-1", pool="default", duration=2000, sent=1005)
        request = observe(1.0, asked, encode_request(Request("GET", b"/a?b=c", FIELDS)), None, redelivered=False)
        response = observe(1.0, told, encode_response(Response(200, fields, body)), None, redelivered=False)
        response.line = {"id": name, "status": 200, "pool": "default", "worker": "worker-1", "attempt": 1}
        found.append((request, response))
    return found


def see(recorder: Recorder, found: list[tuple[Observation, Observation]]) -> float:
    began = time.process_time()
    for request, response in found:
        recorder.see(request)
        recorder.see(response)
    return time.process_time() - began


def best(timed: Callable[[], float]) -> float:
    return min(timed() for _ in range(ROUNDS)) / NUMBER * 1e6


async def read(recorder: Recorder, found: list[tuple[Observation, Observation]]) -> float:
    """Seconds for giving out all of them; what did not fit the queue was never made a line."""
    recording = recorder.begin(Wanted(), seconds=0.2)
    see(recorder, found)
    began = time.process_time()
    async for _ in recording.lines():
        pass
    took = time.process_time() - began
    recorder.end(recording)
    return took / max(1, recording.recorded) * NUMBER


def measure(size: int) -> None:
    found = messages(size)
    recorder = Recorder(Redactor())
    print(f"answers of {len(found[0][1].payload)} bytes")
    print(f"  nobody records            {best(lambda: see(recorder, found)):8.2f}")
    recording = recorder.begin(Wanted(route="other"))
    print(f"  recording another route   {best(lambda: see(recorder, found)):8.2f}")
    recorder.end(recording)
    recording = recorder.begin(Wanted())
    print(f"  recording, reader is slow {best(lambda: see(recorder, found)):8.2f}")
    recorder.end(recording)
    print(f"  making a line             {best(lambda: asyncio.run(read(recorder, found))):8.2f}")


for each in (500, 10_000):
    measure(each)
