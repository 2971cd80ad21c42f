"""What "transparent" means, said once: two requests and two answers, and what may differ between them.

The lists are literal on purpose. They are the promise, not the proxy's own table of headers.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from awscrt import auth, http

from passthrough.policy.credentials import Credentials
from passthrough.sandbox import DEFAULT_CREDENTIALS
from tests.fakes.tap import Fields, Message

# What a client sends for its own connection and its own identity.
NOT_FORWARDED = {
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "litellm_user_api_key",
    "x-litellm-api-key",
    "x-api-key",
    "api-key",
}
# What the proxy adds towards AWS. A client's own content hash is sent on, if it is one.
ADDED_UPSTREAM = {
    "host",
    "content-length",
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
}
ABOUT_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Exchange:
    """A call on both sides of the proxy."""

    asked: Message
    answered: Message
    forwarded: Message
    answer_of_aws: Message


def untouched(exchange: Exchange, *, prefix: str = "/bedrock", ours: Collection[str] = ()) -> None:
    """Every byte that is the client's or AWS's arrived as it was sent; `ours` are more fields that stay here."""
    request_untouched(exchange, prefix=prefix, ours=ours)
    answer_untouched(exchange)


def request_untouched(exchange: Exchange, *, prefix: str = "/bedrock", ours: Collection[str] = ()) -> None:
    asked, forwarded = exchange.asked, exchange.forwarded
    assert forwarded.start == asked.start.replace(f" {prefix}/".encode(), b" /", 1)
    assert forwarded.body == asked.body
    assert without(forwarded.fields, ADDED_UPSTREAM) == without(asked.fields, {*NOT_FORWARDED, *ours})
    if asked.body:
        assert forwarded.value("content-length") == str(len(asked.body))
        assert not forwarded.values("transfer-encoding")


def answer_untouched(exchange: Exchange) -> None:
    theirs, ours = exchange.answer_of_aws, exchange.answered
    assert ours.start == theirs.start
    assert without(ours.fields, {*ABOUT_THE_CONNECTION, "x-passthrough-call-id"}) == without(
        theirs.fields, ABOUT_THE_CONNECTION
    )
    assert ours.body == theirs.body
    assert len(ours.values("x-passthrough-call-id")) == 1


def without(fields: Fields, names: set[str]) -> Fields:
    return [(name, value) for name, value in fields if name.decode().lower() not in names]


@dataclass(frozen=True)
class Signed:
    """What a valid signature was made for."""

    access_key: str
    region: str
    headers: list[str]


def signature_of(request: Message, credentials: Credentials = DEFAULT_CREDENTIALS) -> Signed:
    """Have AWS's C implementation sign what arrived, and compare: fails unless the signature is valid."""
    authorization = request.value("authorization")
    scheme, _, parameters = authorization.partition(" ")
    assert scheme == "AWS4-HMAC-SHA256"
    claimed = dict(part.strip().split("=", 1) for part in parameters.split(","))
    access_key, _, region, service, _ = claimed["Credential"].split("/")
    assert (access_key, service) == (credentials.access_key, "bedrock")
    names = claimed["SignedHeaders"].split(";")
    by_the_signer = {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
    headers = [(name, value) for name in names if name not in by_the_signer for value in request.values(name)]
    again = http.HttpRequest(request.method, request.target.decode("latin-1"), http.HttpHeaders(headers))
    hashed = request.values("x-amz-content-sha256")
    config = auth.AwsSigningConfig(
        algorithm=auth.AwsSigningAlgorithm.V4,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=auth.AwsCredentialsProvider.new_static(
            credentials.access_key, credentials.secret_key, credentials.token
        ),
        region=region,
        service="bedrock",
        date=datetime.strptime(request.value("x-amz-date"), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        use_double_uri_encode=True,
        should_normalize_uri_path=True,
        signed_body_value=hashed[0] if hashed else hashlib.sha256(request.body).hexdigest(),
        signed_body_header_type=(
            auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256 if hashed else auth.AwsSignedBodyHeaderType.NONE
        ),
    )
    auth.aws_sign_request(again, config).result(10)
    assert authorization == dict(again.headers)["Authorization"]
    return Signed(access_key, region, names)
