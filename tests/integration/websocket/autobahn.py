"""Autobahn's own suite, where it is installed. It runs on Python 2.7 only, so it is no requirement of these tests:

    python2.7 -m pip install autobahntestsuite==0.8.2 autobahn==0.10.9 Twisted==20.3.0

Its `wstest` is taken from PATH, or from the variable WSTEST.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from integration.client import Address

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
"""The first two differ by luck: whether an echo was faster than the failure behind it."""
CASES = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*"
"""Half a minute for each server. Those of compression, 12 and 13, take half an hour."""

Verdicts = dict[str, tuple[str, str]]


def wstest() -> str | None:
    return os.environ.get("WSTEST") or shutil.which("wstest")


def autobahn(program: str, servers: dict[str, Address], path: str, directory: Path) -> dict[str, Verdicts]:
    """Verdicts on behaviour and on closing, by server and case. AUTOBAHN_CASES chooses other cases: `*` is all."""
    spec = directory / "fuzzingclient.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(directory / "reports"),
                "servers": [
                    {"agent": agent, "url": f"ws://{host}:{port}{path}"} for agent, (host, port) in servers.items()
                ],
                "cases": os.environ.get("AUTOBAHN_CASES", CASES).split(","),
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    log = (directory / "wstest.log").open("wb")
    with log:
        subprocess.run(
            [program, "-m", "fuzzingclient", "-s", str(spec)], cwd=directory, stdout=log, stderr=log, check=True
        )
    index = json.loads((directory / "reports" / "index.json").read_text())
    return {
        agent: {case: (result["behavior"], result["behaviorClose"]) for case, result in results.items()}
        for agent, results in index.items()
    }


def worse(than: Verdicts, verdicts: Verdicts) -> dict[str, str]:
    """The cases that the other server passes, in behaviour or in closing, and this one does not."""
    return {
        case: f"{' / '.join(mine)} instead of {' / '.join(than[case])}"
        for case, mine in verdicts.items()
        if any(a not in PASSED and b in PASSED for a, b in zip(mine, than[case], strict=True))
    }


def summary(results: dict[str, Verdicts]) -> str:
    lines = []
    for agent, verdicts in results.items():
        counted = Counter(behaviour for behaviour, _ in verdicts.values())
        others = [f"{case} {' / '.join(both)}" for case, both in verdicts.items() if both != ("OK", "OK")]
        lines.append(f"{agent}: {', '.join(f'{count} {verdict}' for verdict, count in counted.items())}")
        lines.append(f"    not OK / OK: {', '.join(others) or '-'}")
    return "\n".join(lines)
