"""Keys as bindings write them: words joined by dots, `*` for one word, `#` for any number of them.

https://www.rabbitmq.com/tutorials/amqp-concepts#exchange-topic
"""

import re
from functools import cache

from rabbitbal.routes.table import LONGEST_KEY, MOST_WORDS

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}|\*|#")


def is_pattern(key: str) -> bool:
    """Whether a key, or a pattern of keys, is well formed."""
    words = key.split(".")
    return len(key) <= LONGEST_KEY and len(words) <= MOST_WORDS and all(_WORD.fullmatch(word) for word in words)


def overlap(one: str, other: str) -> bool:
    """Whether some key is matched by both."""
    left, right = tuple(one.split(".")), tuple(other.split("."))

    @cache
    def meet(i: int, j: int) -> bool:
        if i == len(left) and j == len(right):
            return True
        if i < len(left) and left[i] == "#":
            return meet(i + 1, j) or (j < len(right) and meet(i, j + 1))
        if j < len(right) and right[j] == "#":
            return meet(i, j + 1) or (i < len(left) and meet(i + 1, j))
        if i == len(left) or j == len(right):
            return False
        same = left[i] == right[j] or "*" in (left[i], right[j])
        return same and meet(i + 1, j + 1)

    return meet(0, 0)


def matches(pattern: str, key: str) -> bool:
    """Whether a binding's pattern leads this key."""
    return overlap(pattern, key)
