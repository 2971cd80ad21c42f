"""What an answer says it consumed: one value, `Usage`, for every shape in which Bedrock says it.

Three spellings of a usage object exist side by side (from botocore's service models, the OpenAI and Anthropic
SDKs' types and recorded answers): Converse and Nova write `inputTokens`, Anthropic `input_tokens`, OpenAI
`prompt_tokens` (chat) or `input_tokens` with `input_tokens_details` (Responses). In the first two the cached tokens
stand beside the input, in OpenAI's they are part of it; here they always stand beside it. Older models have
fields of their own, and InvokeModelWithResponseStream ends with `amazon-bedrock-invocationMetrics`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from passthrough.bedrock.documents import (
    MAX_COUNT,
    NO_MEMBER,
    UNREADABLE,
    ConverseUsage,
    Document,
    decode_results,
    decode_trace,
    read_document,
)

UsageSource = Literal["headers", "body", "stream", "estimate", "none"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens (or other units) of one call; None means that nobody said, never that it was nothing.

    `input_tokens` excludes cached tokens; `cache_write_tokens` is every cache write, `cache_write_1h_tokens`
    the part of it with the one-hour price. `units` counts what is not tokens: guardrail policy units, search
    queries, images. `model` is a model that the answer itself names. `by_model` holds the parts when one call
    ran several models (agents); the fields above are then their sums. `complete` is False while the part of
    the answer that has the final figures was not seen.
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

    @property
    def reported(self) -> bool:
        """Whether anything was counted at all."""
        return (
            self.input_tokens is not None
            or self.output_tokens is not None
            or self.cache_read_tokens is not None
            or self.cache_write_tokens is not None
            or bool(self.units)
        )


NOTHING = Usage()

_MAX_NAME = 2048  # botocore's ConversationalModelId, the longest way to name a model
_MAX_TIER = 64  # the names have eight letters; room for AWS's next ones


def of_document(document: Document) -> Usage:
    """Count what an answer's object, or one streamed chunk, reports. `source` is left to the caller."""
    usage = _of_level(document)
    for part in (document.message, document.metadata, document.response):
        # one level down and no deeper, whatever is nested there
        if part is not NO_MEMBER and part and (inner := read_document(part)) is not None:
            usage = overlay(usage, _of_level(inner))
    return usage if document.metrics is None else overlay(usage, counts(document.metrics))


def _of_level(document: Document) -> Usage:
    usage = counts(document.usage)
    if document.titan_input is not None or document.llama_input is not None or document.llama_output is not None:
        usage = overlay(usage, _older_counts(document))
    return overlay(usage, _circumstances(document))


def with_own_model(usage: Usage, document: Document) -> Usage:
    """Add the model that an OpenAI- or Anthropic-shaped answer names, which there is a Bedrock id."""
    inner = next((read_document(part) for part in (document.message, document.response) if part), None)
    model = model_name(document.model) or (model_name(inner.model) if inner else None)
    return overlay(usage, Usage(model=model)) if model else usage


def model_name(value: object) -> str | None:
    """Take a name for a model if it is one that could be."""
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_NAME else None


def counts(usage: object) -> Usage:
    """Count tokens in a usage object of any of the spellings."""
    if type(usage) is ConverseUsage:
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        return Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_again if read is None else read,
            cache_write_tokens=usage.cache_write_again if written is None else written,
        )
    if not isinstance(usage, dict):
        return NOTHING
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        return _with_cache_inside(usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details")
    if "input_tokens_details" in usage:
        return _with_cache_inside(usage, "input_tokens", "output_tokens", "input_tokens_details")
    if "input_tokens" in usage or "output_tokens" in usage:
        return _anthropic(usage)
    return _converse(usage)


def policy_units(usage: object) -> Mapping[str, float]:
    """Count a guardrail's policy units: flat for ApplyGuardrail, `{check: {textUnits}}` for InvokeGuardrailChecks."""
    if not isinstance(usage, dict):
        return {}
    units = {}
    for name, value in usage.items():
        count = _count(value.get("textUnits") if isinstance(value, dict) else value)
        if count is not None:
            units[name] = float(count)
    return units


def overlay(base: Usage, over: Usage) -> Usage:
    """Let what `over` knows replace what `base` knows."""
    if over is NOTHING or over == NOTHING:
        return base
    if base is NOTHING or base == NOTHING:
        return over
    known = {name: value for name in _OVERLAID if (value := getattr(over, name)) is not None}
    return msgspec.structs.replace(base, **known)


_OVERLAID = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "model",
    "tier",
    "latency",
)


def tier_of(value: object) -> str | None:
    """Name the service tier; Anthropic and OpenAI say `standard` where AWS says `default`."""
    tier = value if isinstance(value, str) and 0 < len(value) <= _MAX_TIER else None
    return "default" if tier == "standard" else tier


def latency_of(value: object) -> str | None:
    """`optimized`, or None for the standard latency."""
    return "optimized" if value == "optimized" else None


def _count(value: object) -> int | None:
    """A count; guardrail-blocked streams write theirs as floats (`6.0`)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_COUNT:
        return None
    return round(value)


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    """The first of several spellings that is there."""
    for name in names:
        if name in usage and (count := _count(usage[name])) is not None:
            return count
    return None


def _converse(usage: Mapping[str, Any]) -> Usage:
    written = _first(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    hour = None
    details = usage.get("cacheDetails")
    if isinstance(details, list):
        by_ttl = [(d.get("ttl"), _count(d.get("inputTokens")) or 0) for d in details if isinstance(d, dict)]
        hour = sum(count for ttl, count in by_ttl if ttl == "1h")
        written = written if written is not None else sum(count for _, count in by_ttl)
    return Usage(
        input_tokens=_first(usage, "inputTokens", "inputTokenCount"),
        output_tokens=_first(usage, "outputTokens", "outputTokenCount"),
        cache_read_tokens=_first(usage, "cacheReadInputTokens", "cacheReadInputTokenCount"),
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
    )


def _anthropic(usage: Mapping[str, Any]) -> Usage:
    written = _count(usage.get("cache_creation_input_tokens"))
    hour = None
    creation = usage.get("cache_creation")
    if isinstance(creation, dict):
        hour = _count(creation.get("ephemeral_1h_input_tokens"))
        if written is None and hour is not None:
            written = hour + (_count(creation.get("ephemeral_5m_input_tokens")) or 0)
    return Usage(
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cache_read_tokens=_count(usage.get("cache_read_input_tokens")),
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        tier=tier_of(usage.get("service_tier")),
    )


def _with_cache_inside(usage: Mapping[str, Any], prompt: str, completion: str, details_name: str) -> Usage:
    """OpenAI's: cached and written tokens are part of the input, and are taken out of it here."""
    details = usage.get(details_name)
    details = details if isinstance(details, dict) else {}
    read, written = _count(details.get("cached_tokens")), _count(details.get("cache_write_tokens"))
    total = _count(usage.get(prompt))
    return Usage(
        input_tokens=None if total is None else max(0, total - (read or 0) - (written or 0)),
        output_tokens=_count(usage.get(completion)),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _older_counts(document: Document) -> Usage:
    """Titan's and Llama's fields of their own."""
    if document.titan_input is None:
        return Usage(input_tokens=_count(document.llama_input), output_tokens=_count(document.llama_output))
    output = _count(document.titan_output)
    if output is None and document.results:
        try:
            results = decode_results(document.results)
        except UNREADABLE:
            results = []
        output = sum(_count(result.count) or 0 for result in results) if results else None
    return Usage(input_tokens=_count(document.titan_input), output_tokens=output)


def _circumstances(document: Document) -> Usage:
    """What decides the price besides tokens: tier, latency, the model that a prompt router chose."""
    model = None
    if document.trace:
        try:
            router = decode_trace(document.trace).router
        except UNREADABLE:
            router = None
        model = model_name(router.invoked) if router else None
    tier = document.tier.get("type") if isinstance(document.tier, dict) else document.openai_tier
    latency = document.performance.get("latency") if isinstance(document.performance, dict) else None
    if model is None and tier is None and latency is None:
        return NOTHING
    return Usage(model=model, tier=tier_of(tier), latency=latency_of(latency))
