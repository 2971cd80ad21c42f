"""What the headers of InvokeModel's answers say was consumed, and how it was served."""

from collections.abc import Mapping

from passthrough.bedrock.usage import Usage, latency_of, tier_of

_DIGITS = 10  # of a count: more than fit the ledger's integers are garbage


def usage_of_headers(fields: Mapping[str, str]) -> Usage:
    """Read headers, by lower-case name. `source` is left to the caller."""
    return Usage(
        input_tokens=_number(fields.get("x-amzn-bedrock-input-token-count")),
        output_tokens=_number(fields.get("x-amzn-bedrock-output-token-count")),
        cache_read_tokens=_number(fields.get("x-amzn-bedrock-cache-read-input-token-count")),
        cache_write_tokens=_number(fields.get("x-amzn-bedrock-cache-write-input-token-count")),
        tier=tier_of(fields.get("x-amzn-bedrock-service-tier")),
        latency=latency_of(fields.get("x-amzn-bedrock-performanceconfig-latency")),
    )


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdecimal() and len(value) < _DIGITS else None
