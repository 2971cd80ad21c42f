"""On whose behalf a call is made, as its headers and its body say it, and what of that is kept.

Clients write it, before anybody knows who they are, and it ends in logs, indexes and sums: so texts are cut, what
cannot be stored is left out, a key that stands in it is taken out, and of a caller who was never known nothing is
counted. Attribution is a courtesy: nothing here raises, no call fails for it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from passthrough.bedrock.documents import UNREADABLE
from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Body
from passthrough.policy.ledger import LONGEST_METADATA, LONGEST_TEXT, MOST_TAGS, Entry

REQUEST_METADATA: Final = b'"requestMetadata"'
REMOVED: Final = "[key]"

_TEXTS: Final = ("end_user", "session_id", "user_agent", "model", "client_invocation_id")


class _Attributed(msgspec.Struct):
    """The one member of a Converse request that is about whom it is for (at most 16 short entries)."""

    requestMetadata: dict[str, str] | None = None  # noqa: N815  # AWS's name


def attribute(entry: Entry, headers: Mapping[str, str]) -> None:
    """Fill in what the headers say, named as LiteLLM, Claude Code and the AWS SDKs name them."""
    get = headers.get
    entry.user_agent = _text(get("User-Agent"))
    entry.end_user = _text(get("x-litellm-customer-id") or get("x-litellm-end-user-id"))
    entry.session_id = _text(get("x-claude-code-session-id"))
    entry.client_invocation_id = _text(get("amz-sdk-invocation-id"))
    entry.attempt = _attempt(get("amz-sdk-request"))
    # what is asked for; the answer says what it was
    entry.tier = _text(get("X-Amzn-Bedrock-Service-Tier"))
    entry.latency = _text(get("X-Amzn-Bedrock-PerformanceConfig-Latency"))
    tags = get("x-litellm-tags")
    if tags:
        named = (tag.strip() for tag in tags.split(",", MOST_TAGS)[:MOST_TAGS])
        entry.tags = tuple(tag for name in named if (tag := _text(name)))
    entry.metadata = _metadata(
        get("x-litellm-spend-logs-metadata") or get("X-Amzn-Bedrock-Request-Metadata"), get("x-claude-code-agent-id")
    )


def attribute_by_body(entry: Entry, body: Body) -> None:
    """Fill in Converse's attribution, where no header said anything."""
    if entry.metadata is not None or REQUEST_METADATA not in body or is_intricate(body):
        return
    try:
        found = msgspec.json.decode(body, type=_Attributed).requestMetadata
    except UNREADABLE:
        return
    entry.metadata = _json(found)


def take_out_key(entry: Entry, secret: str) -> None:
    """Remove the caller's key from wherever the caller has put it beside its place."""
    said = (
        f"{entry.user_agent}{entry.end_user}{entry.session_id}{entry.client_invocation_id}{entry.model}{entry.metadata}"
    )
    if not entry.tags and secret not in said and "\\" not in said:  # one look for all, on the path of every call
        return
    for name in _TEXTS:
        value = getattr(entry, name)
        if value and secret in value:
            setattr(entry, name, value.replace(secret, REMOVED))
    if entry.tags and any(secret in tag for tag in entry.tags):
        entry.tags = tuple(tag.replace(secret, REMOVED) for tag in entry.tags)
    if entry.metadata and (secret in entry.metadata or json.dumps(secret)[1:-1] in entry.metadata):
        entry.metadata = None


def disown(entry: Entry) -> None:
    """Keep nothing that is counted, from somebody who showed no valid key: tags and customers are for callers."""
    entry.tags = ()
    entry.end_user = entry.session_id = entry.metadata = None


def _text(value: str | None) -> str | None:
    if not value:
        return None
    if not value.isascii():  # bytes that were no UTF-8 come as lone surrogates
        value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value[:LONGEST_TEXT]


def _metadata(given: str | None, agent: str | None) -> str | None:
    """The JSON object of the header, and the agent: as JSON text. What is no JSON object is left out."""
    fields: dict[str, Any] = {}
    if given and len(given) <= LONGEST_METADATA:
        try:
            fields = msgspec.json.decode(given.encode("utf-8", "replace"), type=dict[str, Any])
        except UNREADABLE:
            fields = {}
    if agent:
        fields["agent_id"] = _text(agent)
    return _json(fields)


def _json(fields: Mapping[str, Any] | None) -> str | None:
    """As JSON text that PostgreSQL takes, or nothing."""
    if not fields:
        return None
    text = msgspec.json.encode(fields)
    return text.decode() if len(text) <= LONGEST_METADATA and b"\\u0000" not in text else None


def _attempt(value: str | None) -> int | None:
    """The number in `amz-sdk-request: attempt=2; max=3`."""
    if not value or not value.startswith("attempt="):
        return None
    number = value[8:].split(";", 1)[0].strip()
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 6 else None  # noqa: PLR2004  # fits any column
