"""Which header fields go on, in both directions, and which do not: a table with a reason a row.

Fields are bytes as they came; order, casing and duplicates are kept. The verdict on a name is worked out
once and remembered, so that a call pays one dictionary lookup per field.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import msgspec

RawHeaders = Sequence[tuple[bytes, bytes]]

# RFC 9110 §7.6.1: between two neighbours only. `proxy-connection` is not standard but still sent by libcurl.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

_BETWEEN_NEIGHBOURS = frozenset(name.decode() for name in _HOP_BY_HOP)

# What `Connection` says of itself, beside the names of other fields; and a field that it may not name, for without it
# nobody could tell where the body ends (RFC 9110 §7.6.1).
_ABOUT_THE_CONNECTION = frozenset({b"keep-alive", b"close", b"content-length"})

# Where a credential of ours can stand: none of them ever goes upstream.
CREDENTIAL_HEADERS = (
    b"litellm_user_api_key",
    b"x-litellm-api-key",
    b"x-api-key",
    b"api-key",
    b"authorization",
)

_NOT_FORWARDED = (
    _HOP_BY_HOP
    | frozenset(CREDENTIAL_HEADERS)
    | frozenset(
        {
            b"host",  # the upstream's own is sent
            b"content-length",  # computed anew: a chunked body goes up with its length
            b"expect",  # answered by this server
            b"cookie",  # a browser's, never Bedrock's: of whatever else its user has at our host
            b"x-goog-api-key",  # other places in which LiteLLM's users are used to put a key
            b"ocp-apim-subscription-key",
            b"date",  # SigV4 prefers it to x-amz-date where both exist
            b"x-amz-date",  # the client's signature is not ours
            b"x-amz-security-token",
            b"x-amz-content-sha256",  # added again when it is the hash of the body
            b"forwarded",  # who stands before us is nothing to AWS
            b"x-real-ip",
            b"via",
        }
    )
)
_NOT_FORWARDED_PREFIXES = (
    b"x-forwarded-",
    b"x-litellm-",  # attribution, consumed here
    b"x-passthrough-",  # directions to us
)
# What SigV4 covers, besides Host and what is added with the signature. AWS wants Content-Type and every `x-amz-*`;
# `x-amzn-*` are Bedrock's own parameters (guardrail, latency, trace). The set is small on purpose: a field that a proxy
# or load balancer on the way may add to or rewrite would break the signature, and AWS's tracing header is rewritten.
_SIGNED_PREFIXES = (b"x-amz-", b"x-amzn-")
_UNSIGNED = frozenset({b"x-amzn-trace-id"})

# A name that is not known is remembered until this many are, and if it is short: names come from clients.
_REMEMBERED_NAMES = 2048
_REMEMBERED_LENGTH = 64


# What happens to a field. Words, not an Enum: looking up a member of one costs as much as the rest of a field.
# "names more" is Connection's: its value names other fields to drop.
_Verdict = Literal["drop", "send", "sign", "names more"]


class Forwarded(msgspec.Struct, frozen=True, gc=False):
    """Request fields for the upstream: as lines to send, and as text those that are to be signed."""

    lines: bytes
    signed: list[tuple[str, str]]


class RequestHeaders:
    """Chooses the request fields that go upstream. `key_header`: one more field that may hold a key."""

    def __init__(self, key_header: str | None = None) -> None:
        extra = frozenset({key_header.lower().encode()}) if key_header else frozenset[bytes]()
        self._dropped = _NOT_FORWARDED | extra
        self._verdicts: dict[bytes, _Verdict] = {}

    def choose(self, headers: RawHeaders, key: str) -> Forwarded:
        """Drop by name, and every field in which the presented `key` stands, be it in the name."""
        secret = key.encode("utf-8", "surrogateescape")
        forwarded = self._chosen(headers)
        if secret in forwarded.lines:  # one look at all of them, on the path of every call
            forwarded = self._chosen([field for field in headers if secret not in b"%b: %b" % field])
        return forwarded

    def _chosen(self, headers: RawHeaders) -> Forwarded:
        verdicts = self._verdicts
        lines: list[bytes] = []
        signed: list[tuple[str, str]] = []
        named = frozenset[bytes]()
        for name, value in headers:
            verdict = verdicts.get(name) or self._judge(name)
            if verdict == "drop":
                continue
            if verdict == "names more":
                named |= _listed(value)
            else:
                lines.append(b"%b: %b\r\n" % (name, value))
                if verdict == "sign":
                    signed.append((name.decode("ascii"), value.decode("utf-8", "surrogateescape")))
        if named and named - _ABOUT_THE_CONNECTION:
            lines = [line for line in lines if line.split(b":", 1)[0].lower() not in named]
            signed = [(name, value) for name, value in signed if name.lower().encode() not in named]
        return Forwarded(b"".join(lines), signed)

    def _judge(self, name: bytes) -> _Verdict:
        lowered = name.lower()
        verdict: _Verdict = "send"
        if lowered == b"connection":
            verdict = "names more"
        elif lowered in self._dropped or lowered.startswith(_NOT_FORWARDED_PREFIXES):
            verdict = "drop"
        elif lowered == b"content-type" or (lowered.startswith(_SIGNED_PREFIXES) and lowered not in _UNSIGNED):
            verdict = "sign"
        if len(self._verdicts) < _REMEMBERED_NAMES and len(name) <= _REMEMBERED_LENGTH:
            self._verdicts[name] = verdict
        return verdict


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """The fields of an upstream's answer: as lines for the client, and by lower-case name for us.

    Of a field that came twice, `fields` has the last.
    """

    lines: bytes
    fields: dict[str, str]


def answer_head(headers: RawHeaders) -> AnswerHead:
    """Read the fields of an answer, once for all. `Date` and `Server` are the upstream's or absent."""
    lines: list[bytes] = []
    fields: dict[str, str] = {}
    named = frozenset[bytes]()
    for name, value in headers:
        lowered, start = _answered.get(name) or _name_of_answer(name)
        fields[lowered] = value.decode("latin-1")
        if start:
            lines.append(start + value)
        elif lowered == "connection":
            named |= _listed(value)
    if named and (hidden := named - _ABOUT_THE_CONNECTION):
        lines = [line for line in lines if line.split(b":", 1)[0].lower() not in hidden]
    lines.append(b"")
    return AnswerHead(b"\r\n".join(lines), fields)


# Names of answers' fields, which AWS writes in some dozens of ways: in lower case, and how their line for the client
# starts, empty where there is none.
_answered: dict[bytes, tuple[str, bytes]] = {}


def _name_of_answer(name: bytes) -> tuple[str, bytes]:
    lowered = name.decode("latin-1").lower()
    found = lowered, b"" if lowered in _BETWEEN_NEIGHBOURS else name + b": "
    if len(_answered) < _REMEMBERED_NAMES and len(name) <= _REMEMBERED_LENGTH:
        _answered[name] = found
    return found


@lru_cache(maxsize=64)  # `keep-alive` and `close`, mostly
def _listed(value: bytes) -> frozenset[bytes]:
    return frozenset(name.strip().lower() for name in value.split(b",") if name.strip())
