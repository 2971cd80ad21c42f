"""Patterns with `*`: administrators write them, clients send what is held against them.

Not regular expressions: `.*a.*a.*a.*b` takes minutes over 2,000 letters that a client chose. Here each fixed part is
looked for once, from left to right, so the time is bounded by the length of the text times that of the pattern.
"""

from functools import lru_cache
from typing import Final

_KEPT: Final = 4096  # patterns taken apart and kept; they come from administrators alone


def matches(pattern: str, text: str) -> bool:
    """`*` stands for any characters, none included; everything else for itself."""
    if "*" not in pattern:
        return pattern == text
    first, middle, last = _parts(pattern)
    position, end = len(first), len(text) - len(last)
    if end < position or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:  # the leftmost place leaves the most room for the others
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


@lru_cache(maxsize=_KEPT)
def _parts(pattern: str) -> tuple[str, tuple[str, ...], str]:
    first, *middle, last = pattern.split("*")
    return first, tuple(filter(None, middle)), last
