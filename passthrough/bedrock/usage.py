"""What an answer says it consumed, one value for every shape in which Bedrock says it."""

from collections.abc import Mapping
from typing import Literal

import msgspec

UsageSource = Literal["headers", "body", "stream", "estimate", "none"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens (or other units) of one call; None means that nobody said, never that it was nothing.

    `input_tokens` excludes cached tokens; `cache_write_tokens` is every cache write, `cache_write_1h_tokens`
    the part of it with the one-hour price. `units` counts what is not tokens: guardrail policy units, search
    queries. `model` is a model that the answer itself names. `by_model` holds the parts when one call ran
    several models (agents); the fields above are then their sums. `complete` is False while the part of the
    answer that has the final figures was not seen.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    source: UsageSource = "none"
    model: str | None = None
    tier: str | None = None
    latency: str | None = None
    units: Mapping[str, float] = msgspec.field(default_factory=dict)
    by_model: tuple["Usage", ...] = ()
    complete: bool = True
