"""Combined Log Format, the one that Apache and nginx write and that tools read: one text for an access line.

    203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] "GET /a HTTP/1.1" 200 2326 "http://start.example/" "Mozilla/5.0"

`combined+` goes on with fields of our own, each a name and a value: ` queue_ms=1.5 app_ms=20.2 worker=… attempt=1
reason=- pool=default`. A `-` stands for what is not known.
"""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

EXTRA = ("queue_ms", "app_ms", "worker", "attempt", "reason", "pool")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# What nginx escapes (ngx_http_log_escape): quotes, backslashes, controls, and all that is not ASCII. Latin-1, as it
# works on bytes.
_UNSAFE = re.compile(r'[^\x20-\x7e]|["\\]')
# Where no quotes hold a value together, a blank would end it.
_UNSAFE_BARE = re.compile(r'[^\x21-\x7e]|["\\]')


def combined(line: Mapping[str, Any], at: float) -> str:
    """``at``: seconds since the Unix epoch. The version is that by which the request came here: the client's is not
    known."""
    request = f"{_escaped(line.get('method'))} {_escaped(line['target'])} HTTP/1.1" if line.get("target") else "-"
    return (
        f"{_bare(_client(line))} - - [{_time(int(at))}] "
        f'"{request}" {_bare(line.get("status"))} {_bare(line.get("bytes"))} '
        f'"{_escaped(line.get("referer"))}" "{_escaped(line.get("agent"))}"'
    )


def combined_plus(line: Mapping[str, Any], at: float) -> str:
    return " ".join([combined(line, at), *[f"{name}={_bare(line.get(name))}" for name in EXTRA]])


def _client(line: Mapping[str, Any]) -> str:
    """Of a list of proxies (X-Forwarded-For) the first, who asked."""
    return str(line.get("client") or "").partition(",")[0].strip()


def _escaped(value: object) -> str:
    return _UNSAFE.sub(_hex, _latin(value)) or "-"


def _bare(value: object) -> str:
    return _UNSAFE_BARE.sub(_hex, _latin(value)) or "-"


def _latin(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    return text if text.isascii() else text.encode(errors="replace").decode("latin-1")


def _hex(found: "re.Match[str]") -> str:
    return f"\\x{ord(found[0]):02X}"


@lru_cache(4)
def _time(second: int) -> str:
    # Not strftime: its months are those of the machine's language.
    t = time.gmtime(second)
    return f"{t.tm_mday:02}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year:04}:{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
