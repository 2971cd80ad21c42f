"""How the sandbox counts tokens, so that a test can predict every figure.

* A text has ceil(characters / 4) tokens.
* The text of a prompt is every string in it, joined, except binary data, roles, types and formats
  (`_NOT_TEXT`): messages, system prompts, tool definitions with their schemas, documents.
* A prompt has at least one token.
* A prefix that ends at a cache point is written to the cache the first time a model sees it and read from it
  afterwards, for as long as the sandbox runs. What is read or written is not in the input tokens, as on AWS
  (https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html). Unlike AWS, a prefix may be
  shorter than 1,024 tokens, and it does not expire.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

CHARACTERS_PER_TOKEN = 4
MAX_PREFIXES = 10_000  # the memory of prompts: 32 bytes each, so a long-running sandbox stays small

_NOT_TEXT = frozenset({"bytes", "data", "role", "type", "format", "media_type", "cache_control", "cachePoint"})

Ttl = Literal["5m", "1h"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a prompt; with `cached_for`, a cache point stands at its end."""

    text: str
    cached_for: Ttl | None = None


@dataclass(frozen=True, slots=True)
class TokenUse:
    """What a prompt costs, as AWS counts: `input` excludes what came from or went to the cache."""

    input: int
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    has_cache_points: bool = False

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h

    @property
    def whole(self) -> int:
        """All tokens of the prompt, cached or not."""
        return self.input + self.cache_read + self.cache_write


def count(text: str) -> int:
    return _rounded(len(text))


def _rounded(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def text_of(value: Any) -> str:
    """All text in a piece of JSON."""
    return "".join(_strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _NOT_TEXT:
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


class PromptCache:
    """The prefixes that were seen, per model. Bounded: the least recently used one is forgotten."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def use(self, model: str, segments: Sequence[Segment]) -> TokenUse:
        """Counts a prompt and remembers its prefixes."""
        last_point = max((at for at, part in enumerate(segments) if part.cached_for), default=-1)
        read_to = self._longest_seen(model, segments)
        counts = _Counts()
        for at, part in enumerate(segments):
            if at <= read_to:
                counts.read += len(part.text)
            elif at > last_point:
                counts.input += len(part.text)
            elif _ttl_at(segments, at) == "1h":
                counts.write_1h += len(part.text)
            else:
                counts.write_5m += len(part.text)
        return counts.tokens(has_points=last_point >= 0)

    def _longest_seen(self, model: str, segments: Sequence[Segment]) -> int:
        """Where the longest remembered prefix ends (-1: nowhere); the others are remembered now."""
        longest = -1
        digest = sha256(model.encode("utf-8", "surrogateescape"))
        for at, part in enumerate(segments):
            digest.update(part.text.encode("utf-8", "surrogatepass"))
            if not part.cached_for:
                continue
            prefix = digest.digest()
            if prefix in self._seen:
                longest = at
            self._seen[prefix] = None
            self._seen.move_to_end(prefix)
        while len(self._seen) > MAX_PREFIXES:
            self._seen.popitem(last=False)
        return longest


@dataclass(slots=True)
class _Counts:
    """Characters, until they are rounded up to tokens once."""

    input: int = 0
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0

    def tokens(self, *, has_points: bool) -> TokenUse:
        read, write_5m, write_1h = map(_rounded, (self.read, self.write_5m, self.write_1h))
        least = 0 if read or write_5m or write_1h else 1
        return TokenUse(max(least, _rounded(self.input)), read, write_5m, write_1h, has_points)


def _ttl_at(segments: Sequence[Segment], at: int) -> Ttl | None:
    """The lifetime of the cache point that covers this segment: the next one."""
    return next((part.cached_for for part in segments[at:] if part.cached_for), None)
