"""Step 4: put AWS's signature (SigV4) on a call, over exactly the bytes that will go upstream.

The rule this module keeps: **what is signed is what is sent**. The path goes up as it came, so it is the
raw path that is canonicalised; the query is rewritten once by `canonical_query`, and the result is both
signed and sent, in the client's order; only what is signed is sorted. The algorithm:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

It is written by hand because every call pays for it: botocore's signer parses and rebuilds the request and
derives the key anew each time. Here, what depends on the credentials and the day alone is computed once
(`_Seal`), and so is the canonical form of a path. No clock, network or environment is read.

Text from the client is `str` decoded as aiohttp decodes it, UTF-8 with surrogateescape, and is signed as the
bytes it came from.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from urllib.parse import quote, unquote_to_bytes

from passthrough.policy.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"

PRESIGN_PARAMETERS = frozenset(
    {
        b"x-amz-algorithm",
        b"x-amz-credential",
        b"x-amz-date",
        b"x-amz-expires",
        b"x-amz-security-token",
        b"x-amz-signature",
        b"x-amz-signedheaders",
    }
)
"""The client's own signature in the query: it is for us, not for AWS, who would refuse two signatures."""

SEALS_KEPT = 256
"""Identities by regions by today and yesterday: AWS has a few dozen regions, a deployment few identities."""

PATHS_KEPT = 2048
"""Models in use are dozens, in a few spellings; agent sessions put an id in the path and age out."""

LONGEST_PATH_KEPT = 1024
"""Characters. A longer path is canonicalised anew each time: 2048 with their longest encodings take about 8 MiB."""

FORMS_KEPT = 128
"""Models called within a second by clients of a few kinds."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seal:
    """What a signature takes from the credentials, the day and the region: nothing of the request."""

    scope: str
    prefix: str
    token: bytes = field(repr=False)
    keyed: hmac.HMAC = field(repr=False)

    def signature(self, to_sign: bytes) -> str:
        """Sign: a copy of the keyed state costs half of keying it again."""
        state = self.keyed.copy()
        state.update(to_sign)
        return state.hexdigest()


@dataclass(frozen=True, slots=True)
class _Form:
    """What of a signature all calls to one target in one second share: everything but the hash of the body."""

    seal: _Seal
    amz_date: str
    request: "hashlib._Hash"  # of the canonical request as far as the body's hash
    to_sign: bytes
    authorization: str


class Signer:
    """Signs requests for one service; every service that we forward to signs as `bedrock`.

    Its caches are bounded and keyed by all they depend on, the secret included: a secret or a session token
    that was rotated under the same access key is never mistaken for its predecessor.
    """

    def __init__(self, service: str = "bedrock") -> None:
        self._seals = lru_cache(SEALS_KEPT)(partial(_seal, service))
        self._uris = lru_cache(PATHS_KEPT)(canonical_uri)
        self._forms = lru_cache(FORMS_KEPT)(self._form)
        self._dates = lru_cache(2)(_amz_date)  # this second and, while calls overtake one another, the last

    def sign(
        self,
        *,
        method: str,
        path: str,
        query: str,
        host: str,
        headers: Sequence[tuple[str, str]],
        payload_sha256: str,
        credentials: Credentials,
        region: str,
        timestamp: float,
    ) -> list[tuple[str, str]]:
        """Return the headers to add: `X-Amz-Date`, `Authorization`, and a session's `X-Amz-Security-Token`.

        `path` is raw, `query` comes from `canonical_query`, `host` is the Host header. All `headers` are signed (which
        these are, `RequestHeaders` says), and they hold none of those to add. `payload_sha256` is in hex, `timestamp`
        in seconds since 1970.
        """
        access_key, secret_key, token = credentials.access_key, credentials.secret_key, credentials.token
        # Most calls have no query and one header to be signed, their content type: those come again within the second.
        alike = not query and len(headers) <= 1 and len(path) <= LONGEST_PATH_KEPT
        form = (self._forms if alike else self._form)(
            method, path, query, host, tuple(headers), int(timestamp), region, access_key, secret_key, token
        )
        request = form.request.copy()
        request.update(payload_sha256.encode())
        signature = form.seal.signature(form.to_sign + request.hexdigest().encode())
        added = [("X-Amz-Date", form.amz_date), ("Authorization", form.authorization + signature)]
        if token:
            added.append(("X-Amz-Security-Token", token))
        return added

    def _form(
        self,
        method: str,
        path: str,
        query: str,
        host: str,
        headers: tuple[tuple[str, str], ...],
        second: int,
        region: str,
        access_key: str,
        secret_key: str,
        token: str | None,
    ) -> _Form:
        amz_date = self._dates(second)
        seal = self._seals(access_key, secret_key, token, amz_date[:8], region)
        signed = [(name.lower().encode(), canonical_value(value)) for name, value in headers]
        signed += ((b"host", canonical_value(host)), (b"x-amz-date", amz_date.encode()))
        if seal.token:
            signed.append((b"x-amz-security-token", seal.token))
        block, names = canonical_headers(signed)
        uri = self._uris(path) if len(path) <= LONGEST_PATH_KEPT else canonical_uri(path)
        return _Form(
            seal=seal,
            amz_date=amz_date,
            request=hashlib.sha256(canonical_request(method, uri, query, block, names, "")),
            to_sign=string_to_sign(amz_date, seal.scope, ""),
            authorization=f"{seal.prefix}{names.decode()}, Signature=",
        )


def canonical_query(raw: str) -> str:
    """Rewrite a raw query to the spelling that AWS reproduces when it checks a signature; drop presigning.

    Send what this returns: SDKs write queries so already, for them nothing changes, their order included. A `+`
    stands for itself, as in every AWS query; a name without `=` gets one.
    """
    if not raw:
        return ""
    pairs = []
    for part in raw.encode("utf-8", "surrogateescape").split(b"&"):
        name, _, value = part.partition(b"=")
        plain = unquote_to_bytes(name)
        if part and plain.lower() not in PRESIGN_PARAMETERS:
            pairs.append(f"{quote(plain, safe='')}={quote(unquote_to_bytes(value), safe='')}")
    return "&".join(pairs)


def canonical_uri(path: str) -> str:
    """Encode a raw path once more: `%3A` becomes `%253A`, as for every service but S3.

    Doubled slashes and dot segments are resolved, in what is signed only. An encoded dot segment (`%2e%2e`)
    is a segment like any other.
    """
    if "//" in path or "/." in path or not path:
        path = _resolved(path)
    return quote(path.encode("utf-8", "surrogateescape"), safe="/")


def canonical_value(value: str) -> bytes:
    """Trim a header's value and make each run of white space in it one space."""
    return b" ".join(value.encode("utf-8", "surrogateescape").split())


def canonical_headers(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """From lower-case names and canonical values make the block of header lines and the list of names.

    Fields of one name are joined with a comma, in the order in which they are sent.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in pairs:
        fields[name] = fields[name] + b"," + value if name in fields else value
    names = sorted(fields)
    return b"\n".join([name + b":" + fields[name] for name in names]), b";".join(names)


def canonical_request(method: str, uri: str, query: str, block: bytes, names: bytes, payload_sha256: str) -> bytes:
    """Write down what of a request is signed. The empty line ends the headers; the hash of the body comes last."""
    if "&" in query:
        query = "&".join(sorted(query.split("&"), key=_name_then_value))
    head = f"{method}\n{uri}\n{query}\n".encode()
    return b"\n".join((head + block, b"", names, payload_sha256.encode()))


def _name_then_value(pair: str) -> tuple[str, str]:
    # not the text as it is: "a-b=" would come before "a="
    name, _, value = pair.partition("=")
    return name, value


def string_to_sign(amz_date: str, scope: str, request_sha256: str) -> bytes:
    """Write down what is signed in the end. The hash of the canonical request comes last."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{request_sha256}".encode()


def signing_key(secret_key: str, date: str, region: str, service: str) -> bytes:
    """Derive the key of one day (`YYYYMMDD`), region and service."""
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _seal(service: str, access_key: str, secret_key: str, token: str | None, date: str, region: str) -> _Seal:
    scope = f"{date}/{region}/{service}/aws4_request"
    return _Seal(
        scope=scope,
        prefix=f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders=",
        token=canonical_value(token or ""),
        keyed=hmac.new(signing_key(secret_key, date, region, service), digestmod="sha256"),
    )


def _amz_date(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


def _resolved(path: str) -> str:
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in {"", "."}:
            segments.append(segment)
    end = "/" if segments and path.endswith("/") else ""
    return "/" + "/".join(segments) + end
