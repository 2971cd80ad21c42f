"""On whose behalf a call is made, as its headers and its body say it, and what of that is kept.

Clients write it, before anybody knows who they are, and it ends in logs, indexes and sums: so texts are cut, what
cannot be stored is left out, a key that stands in it is taken out, and of a caller who was never known nothing is
counted. Attribution is a courtesy: nothing here raises, no call fails for it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Body
from passthrough.bedrock.usage import UNREADABLE
from passthrough.policy.ledger import Entry

RawHeaders = Sequence[tuple[bytes, bytes]]

LONGEST_TEXT: Final = 512  # characters of a header; boto3's User-Agent has some 250
MOST_TAGS: Final = 100  # of a call; a key may have as many
LONGEST_METADATA: Final = 4096  # bytes of JSON
REQUEST_METADATA: Final = b'"requestMetadata"'
REMOVED: Final = "[key]"

_SAYING: Final = frozenset(
    {
        "user-agent",
        "x-litellm-customer-id",
        "x-litellm-end-user-id",
        "x-litellm-tags",
        "x-litellm-spend-logs-metadata",
        "x-claude-code-session-id",
        "x-claude-code-agent-id",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "x-amzn-bedrock-service-tier",
        "x-amzn-bedrock-performanceconfig-latency",
        "x-amzn-bedrock-request-metadata",
    }
)
_REMEMBERED_NAMES: Final = 2048  # and short ones: names come from clients
_REMEMBERED_LENGTH: Final = 64

_TEXTS: Final = ("end_user", "session_id", "user_agent", "model", "client_invocation_id")


class _Attributed(msgspec.Struct):
    """The one member of a Converse request that is about whom it is for (at most 16 short entries)."""

    requestMetadata: dict[str, str] | None = None  # noqa: N815  # AWS's name


def attribute(entry: Entry, headers: RawHeaders) -> None:
    """Fill in what the headers say, named as LiteLLM, Claude Code and the AWS SDKs name them.

    Of a field that came twice, the first counts.
    """
    said: dict[str, str] = {}
    for name, value in headers:
        known = _known.get(name)
        if known is None:
            known = _find(name)
        if known and known not in said:
            said[known] = value.decode("utf-8", "surrogateescape")
    entry.user_agent = _text(said.pop("user-agent", None))
    if said:  # beside the user agent, most calls say little or nothing
        _attribute(entry, said.get)


# Names as they were sent, and as they are read here: empty for the many that say nothing. Clients of one kind spell
# them alike, so a call pays for one look at each of its fields, and not for one at each of ours.
_known: dict[bytes, str] = {}


def _find(name: bytes) -> str:
    lowered = name.decode("latin-1").lower()
    known = lowered if lowered in _SAYING else ""
    if len(_known) < _REMEMBERED_NAMES and len(name) <= _REMEMBERED_LENGTH:
        _known[name] = known
    return known


def _attribute(entry: Entry, get: Callable[[str], str | None]) -> None:
    entry.end_user = _text(get("x-litellm-customer-id") or get("x-litellm-end-user-id"))
    entry.session_id = _text(get("x-claude-code-session-id"))
    entry.client_invocation_id = _text(get("amz-sdk-invocation-id"))
    entry.attempt = _attempt(get("amz-sdk-request"))
    # what is asked for; the answer says what it was
    entry.tier = _text(get("x-amzn-bedrock-service-tier"))
    entry.latency = _text(get("x-amzn-bedrock-performanceconfig-latency"))
    tags = get("x-litellm-tags")
    if tags:
        named = (tag.strip() for tag in tags.split(",", MOST_TAGS)[:MOST_TAGS])
        entry.tags = tuple(tag for name in named if (tag := _text(name)))
    entry.metadata = _metadata(
        get("x-litellm-spend-logs-metadata") or get("x-amzn-bedrock-request-metadata"), get("x-claude-code-agent-id")
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
    text = msgspec.json.encode(fields).decode()
    return text if len(text) <= LONGEST_METADATA and "\\u0000" not in text else None


def _attempt(value: str | None) -> int | None:
    """The number in `amz-sdk-request: attempt=2; max=3`."""
    if not value or not value.startswith("attempt="):
        return None
    number = value[8:].split(";", 1)[0].strip()
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 6 else None  # noqa: PLR2004  # fits any column
