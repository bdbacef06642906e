"""What sites ask crawlers not to take: each host's robots.txt (RFC 9309), as its application last answered it."""

from collections import OrderedDict
from urllib.robotparser import RobotFileParser

MOST_HOSTS = 64
# RFC 9309 §2.5: "Crawlers SHOULD impose a parsing limit ... MUST be at least 500 kibibytes". Who only looks on may stop
# sooner: what was not read disallows nothing.
MOST_BYTES = 64 * 1024
MOST_LINES = 500
_LONGEST_HOST = 255


class Robots:
    """``urllib.robotparser`` knows no wildcards, so rules with them disallow less here than they mean."""

    def __init__(self) -> None:
        self._rules: OrderedDict[str, RobotFileParser] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rules)

    def learn(self, host: str, status: int, body: bytes) -> None:
        """An application's answer to GET /robots.txt."""
        name = _plain(host)
        if status >= 400:
            # RFC 9309 §2.3.1.3: with none "the crawler MAY access any resources on the server".
            self._rules.pop(name, None)
        if status != 200:
            return
        rules = RobotFileParser()
        rules.parse(body[:MOST_BYTES].decode("utf-8", "replace").splitlines()[:MOST_LINES])
        self._rules[name] = rules
        self._rules.move_to_end(name)
        if len(self._rules) > MOST_HOSTS:
            self._rules.popitem(last=False)

    def allow(self, host: str, agent: str, path: str) -> bool:
        rules = self._rules.get(_plain(host))
        if rules is None or path == "/robots.txt":
            return True
        try:
            return rules.can_fetch(agent, path)
        except ValueError:
            # A path that urllib cannot read is none that a rule names.
            return True


def _plain(host: str) -> str:
    """Without port and case."""
    name = host[:_LONGEST_HOST].lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name
