"""Is this request signed as AWS wants it? Recomputed from the bytes that came, never from anything parsed.

This is the other side of the signer, written from AWS's description and on purpose sharing nothing with
`proxy.sign`: a mistake of ours there must not be forgiven here. The order of the checks and their texts are
those of AWS's front end (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html,
and what public bug reports quote). Everything is computed on bytes, so no header can be changed by decoding it.
"""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from passthrough.errors import Refusal
from passthrough.sandbox.exchange import Received

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "bedrock"  # the signing name of bedrock-runtime, bedrock-agent-runtime and bedrock alike
SKEW_SECONDS = 300  # "5 min." in AWS's own texts
_TERMINATOR = "aws4_request"
_BASIC_ISO = "%Y%m%dT%H%M%SZ"
_SCOPE_PARTS = 5
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d+")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the Authorization header says, once it is well-formed."""

    access_key: str
    date: str
    region: str
    signed_headers: Sequence[str]
    signature: str
    timestamp: str

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{SERVICE}/{_TERMINATOR}"


def read_claim(received: Received, *, now: float, region: str | None) -> Claim:
    """The claim of a request that is well-formed, fresh and scoped to this service; else raises `Refusal`.

    `region` is the only one that is accepted; None accepts every name that looks like one.
    """
    authorization = received.header("authorization") or ""
    algorithm, _, rest = authorization.strip().partition(" ")
    fields = _fields(rest, authorization)
    moment = received.header("x-amz-date") or received.header("date")
    _require(fields, moment, authorization)
    timestamp = _timestamp(moment or "", now)
    signed = fields["SignedHeaders"].lower().split(";")
    for name in ("host", "x-amz-security-token"):
        if name not in signed and received.header(name) is not None:
            shown = "'Host' or ':authority'" if name == "host" else f"'{name}'"
            raise invalid_signature(f"{shown} must be a 'SignedHeader' in the AWS Authorization.")
    if algorithm != ALGORITHM:
        raise incomplete(f"Unsupported AWS 'algorithm': '{algorithm}' (only {ALGORITHM} for now).")
    access_key, date, scoped_region = _scope(fields["Credential"], timestamp, region)
    return Claim(access_key, date, scoped_region, signed, fields["Signature"], timestamp)


def verify(received: Received, claim: Claim, secret_key: str) -> None:
    """Raises the refusal that AWS gives to a wrong signature; returns when it is right."""
    body_hash = hashlib.sha256(received.body).hexdigest()
    declared = received.header("x-amz-content-sha256")
    if declared is not None and declared != body_hash:
        raise invalid_signature("The provided 'x-amz-content-sha256' header does not match what was computed.")
    canonical = canonical_request(received, claim.signed_headers, body_hash)
    to_sign = "\n".join((ALGORITHM, claim.timestamp, claim.scope, hashlib.sha256(canonical).hexdigest()))
    key = _signing_key(secret_key, claim.date, claim.region)
    expected = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "surrogateescape")):
        raise invalid_signature(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )


def canonical_request(received: Received, signed_headers: Sequence[str], body_hash: str) -> bytes:
    """The canonical request of the bytes that came: the path encoded once more, the query re-encoded once."""
    return b"\n".join(
        (
            received.method.encode(),
            canonical_path(received.path),
            canonical_query(received.query),
            *(_canonical_header(received, name) for name in signed_headers),
            b"",
            ";".join(signed_headers).encode(),
            body_hash.encode(),
        )
    )


@lru_cache(maxsize=1024)
def canonical_path(path: str) -> bytes:
    """Dot segments and doubled slashes resolved, then encoded again: every service but S3 does so."""
    raw = path.encode("utf-8", "surrogateescape")
    kept: list[bytes] = []
    for segment in raw.split(b"/"):
        if segment == b"..":
            kept[-1:] = []
        elif segment not in {b"", b"."}:
            kept.append(segment)
    closing = b"/" if raw.endswith(b"/") and kept else b""
    return quote(b"/" + b"/".join(kept) + closing, safe="/-_.~").encode()


def canonical_query(query: str) -> bytes:
    """Each name and value decoded and encoded once, a plus sign taken literally, sorted."""
    if not query:
        return b""
    pairs = []
    for part in query.encode("utf-8", "surrogateescape").split(b"&"):
        name, _, value = part.partition(b"=")
        if part:
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs)).encode()


def _encoded(raw: bytes) -> str:
    return quote(unquote_to_bytes(raw), safe="-_.~")


def _canonical_header(received: Received, name: str) -> bytes:
    wanted = name.encode("utf-8", "surrogateescape")
    values = [b" ".join(value.split()) for key, value in received.headers if key.lower() == wanted]
    return wanted + b":" + b",".join(values)


@lru_cache(maxsize=64)  # a day, a region and a secret; four HMACs saved for each request
def _signing_key(secret_key: str, date: str, region: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for part in (date, region, SERVICE, _TERMINATOR):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _fields(rest: str, authorization: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in re.split(r"[,\s]+", rest.strip()):
        name, equals, value = part.partition("=")
        if part and not equals and fields:
            raise incomplete(
                f"'{part}' not a valid key=value pair (missing equal-sign) in Authorization header "
                f"{_hashed(authorization)}."
            )
        fields[name] = value
    return fields


def _require(fields: dict[str, str], moment: str | None, authorization: str) -> None:
    missing = [
        f"Authorization header requires '{name}' parameter."
        for name in ("Credential", "Signature", "SignedHeaders")
        if not fields.get(name)
    ]
    if not moment:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing:
        raise incomplete(f"{' '.join(missing)} {_hashed(authorization)}")


def _hashed(authorization: str) -> str:
    """AWS once echoed the header; what stands there may be somebody's secret, so now it hashes it."""
    digest = hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).digest()
    return f"(Hashed with SHA-256 and encoded with Base64) Authorization={b64encode(digest).decode()}"


def _timestamp(moment: str, now: float) -> str:
    """The time of signing in basic ISO form, if it is within the skew."""
    try:
        signed_at = datetime.strptime(moment, _BASIC_ISO).replace(tzinfo=UTC)
    except ValueError:
        signed_at = _http_date(moment)
    skew = signed_at.timestamp() - now
    timestamp, server_time = signed_at.strftime(_BASIC_ISO), _iso(now)
    if skew < -SKEW_SECONDS:
        limit = _iso(now - SKEW_SECONDS)
        raise invalid_signature(f"Signature expired: {timestamp} is now earlier than {limit} ({server_time} - 5 min.)")
    if skew > SKEW_SECONDS:
        limit = _iso(now + SKEW_SECONDS)
        raise invalid_signature(
            f"Signature not yet current: {timestamp} is still later than {limit} ({server_time} + 5 min.)"
        )
    return timestamp


def _http_date(moment: str) -> datetime:
    """A `Date` header as HTTP writes it: botocore signs with it when a request has one."""
    try:
        signed_at = parsedate_to_datetime(moment)
    except ValueError:
        raise incomplete(
            f"Date must be in ISO-8601 'basic format'. Got '{moment}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ) from None
    return signed_at if signed_at.tzinfo else signed_at.replace(tzinfo=UTC)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime(_BASIC_ISO)


def _scope(credential: str, timestamp: str, region: str | None) -> tuple[str, str, str]:
    """Access key, date and region of a credential that is scoped to where it was sent."""
    parts = credential.rstrip("/").rsplit("/", _SCOPE_PARTS - 1)
    if len(parts) != _SCOPE_PARTS:
        raise incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{credential}'"
        )
    access_key, date, scoped_region, service, terminator = parts
    wrong = []
    if scoped_region != region and (region is not None or not _REGION.fullmatch(scoped_region)):
        wrong.append(f"Credential should be scoped to a valid region, not '{scoped_region}'.")
    if service != SERVICE:
        wrong.append(f"Credential should be scoped to correct service: '{SERVICE}'.")
    if terminator != _TERMINATOR:
        wrong.append(f"Credential should be scoped with a valid terminator: '{_TERMINATOR}', not '{terminator}'.")
    if date != timestamp[:8]:
        wrong.append(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{date}' != '{timestamp[:8]}', from '{timestamp}'."
        )
    if wrong:
        raise invalid_signature(" ".join(wrong))
    return access_key, date, scoped_region


def invalid_signature(message: str) -> Refusal:
    return Refusal(403, "InvalidSignatureException", message)


def incomplete(message: str) -> Refusal:
    return Refusal(403, "IncompleteSignatureException", message)
