"""The verifier against requests that awscrt and boto3 signed, whole and with each part tampered with."""

import time
from collections.abc import Callable, Mapping

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passthrough.errors import Refusal
from passthrough.policy.credentials import Credentials
from passthrough.sandbox import DEFAULT_CREDENTIALS, Received
from passthrough.sandbox.access import Gate
from tests.sandbox.client import Signed, sign

URL = "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-v2%3A1/converse?b=2&a=x%20y"
BODY = b'{"messages": []}'
TEMPORARY = Credentials("ASIATEMPORARY", "temporary-secret", "a-session-token")
MISMATCH = "The request signature we calculated does not match the signature you provided."


def received(url: str, headers: Signed, body: bytes = BODY, method: str = "POST") -> Received:
    raw = tuple((name.encode(), value.encode()) for name, value in headers)
    return Received(method, "/" + url.partition("://")[2].partition("/")[2], raw, body)


def gate(*credentials: Credentials, region: str | None = None) -> Gate:
    return Gate(credentials or (DEFAULT_CREDENTIALS, TEMPORARY), bearer_token=None, region=region)


def admit(request: Received, checked_by: Gate | None = None, now: float | None = None) -> str:
    return (checked_by or gate()).admit(request, takes_bearer=True, now=time.time() if now is None else now)


def refusal(request: Received, checked_by: Gate | None = None, now: float | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        admit(request, checked_by, now)
    assert caught.value.status == 403
    return caught.value


def with_header(headers: Signed, name: str, value: str | None) -> Signed:
    kept = [(key, old) for key, old in headers if key.lower() != name.lower()]
    return kept if value is None else [*kept, (name, value)]


def authorization(headers: Signed) -> str:
    return {name.lower(): value for name, value in headers}["authorization"]


@pytest.mark.parametrize("credentials", [DEFAULT_CREDENTIALS, TEMPORARY])
def test_what_awscrt_signed_is_let_in(credentials: Credentials) -> None:
    headers = sign("POST", URL, body=BODY, headers=[("content-type", "application/json")], credentials=credentials)

    assert admit(received(URL, headers)) == "us-east-1"


PATHS = [
    "/model/a%3A0/invoke",
    "/model/a:0/invoke",
    "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aimported-model%2Fabc/converse",
    "/model/arn:aws:bedrock:us-east-1:1:imported-model/abc/converse",
    "/sessions/",
    "/a//b/./c/../d",
    "/a/%2e%2e/b",
    "/~*'()!;,=+@$&",
    "/gr%C3%BC%C3%9Fe",
    "/",
]
QUERIES = ["", "?", "?a", "?a=&b", "?nextToken=a%20b%2B%2F%3D", "?b=2&a=1&a=0", "?x=1:2/3", "?a=b=c", "?a=1&&b=2"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", QUERIES)
def test_paths_and_queries_are_canonicalised_as_awscrt_does(path: str, query: str) -> None:
    url = f"https://example.com{path}{query}"

    assert admit(received(url, sign("POST", url, body=BODY)))


@settings(max_examples=150, deadline=None)
@given(
    path=st.text("abz09-._~%:/+@ü", max_size=40),
    query=st.lists(st.sampled_from(["a", "b", "=", "&", "%20", "%2f", "+", "/", ":", "~"]), max_size=12).map("".join),
    values=st.lists(st.text("ab  \t,;=", min_size=1, max_size=12), max_size=3),
    body=st.binary(max_size=64),
)
def test_any_request_that_awscrt_signs_is_let_in(path: str, query: str, values: list[str], body: bytes) -> None:
    target = f"{path.lstrip('/')}?{query}"
    while ":/" in target:  # awscrt takes what stands before it for a scheme
        target = target.replace(":/", ":")
    url = f"https://example.com/{target}"
    headers = sign("PUT", url, headers=[(f"x-amz-test-{at}", value) for at, value in enumerate(values)], body=body)

    assert admit(received(url, headers, body, "PUT"))


TAMPERED: Mapping[str, Callable[[Signed], Received]] = {
    "method": lambda headers: received(URL, headers, method="PUT"),
    "path": lambda headers: received(URL.replace("%3A1", "%3A2"), headers),
    "path re-quoted": lambda headers: received(URL.replace("%3A", ":"), headers),
    "query": lambda headers: received(URL.replace("b=2", "b=3"), headers),
    "query dropped": lambda headers: received(URL.partition("?")[0], headers),
    "body": lambda headers: received(URL, headers, BODY + b" "),
    "host": lambda headers: received(URL, with_header(headers, "host", "evil.example")),
    "signed header": lambda headers: received(URL, with_header(headers, "content-type", "text/plain")),
    "signed header dropped": lambda headers: received(URL, with_header(headers, "content-type", None)),
    "signed header doubled": lambda headers: received(URL, [*headers, ("content-type", "application/json")]),
    "signature": lambda headers: received(
        URL, with_header(headers, "authorization", authorization(headers)[:-1] + "x")
    ),
}


@pytest.mark.parametrize("part", TAMPERED)
def test_a_request_that_was_tampered_with_is_refused(part: str) -> None:
    headers = sign("POST", URL, body=BODY, headers=[("content-type", "application/json")])

    refused = refusal(TAMPERED[part](headers))

    assert refused.code == "InvalidSignatureException"
    assert refused.message.startswith(MISMATCH)


def test_a_wrong_secret_gives_a_wrong_signature() -> None:
    other = Credentials(DEFAULT_CREDENTIALS.access_key, "another-secret")

    assert refusal(received(URL, sign("POST", URL, body=BODY, credentials=other))).message.startswith(MISMATCH)


def test_an_unsigned_header_may_change_on_the_way() -> None:
    headers = sign("POST", URL, body=BODY)

    assert admit(received(URL, [*headers, ("x-forwarded-for", "10.0.0.1"), ("accept", "*/*")]))


def test_the_declared_hash_of_the_body_is_compared_with_the_body() -> None:
    headers = sign("POST", URL, body=BODY, declares_hash=True)

    refused = refusal(received(URL, headers, BODY + b" "))

    assert refused.code == "InvalidSignatureException"
    assert "x-amz-content-sha256" in refused.message
    assert admit(received(URL, headers))


@pytest.mark.parametrize(
    ("seconds", "begins"),
    [(-301, "Signature expired: 20"), (301, "Signature not yet current: 20"), (-299, ""), (299, "")],
)
def test_a_clock_may_be_five_minutes_wrong_and_no_more(seconds: int, begins: str) -> None:
    now = 1_800_000_000.0
    request = received(URL, sign("POST", URL, body=BODY, at=now + seconds))

    if begins:
        assert refusal(request, now=now).message.startswith(begins)
    else:
        assert admit(request, now=now)


@pytest.mark.parametrize(
    ("signed_for", "text"),
    [
        ({"region": "eu-west-1"}, "Credential should be scoped to a valid region, not 'eu-west-1'."),
        ({"service": "bedrock-runtime"}, "Credential should be scoped to correct service: 'bedrock'."),
    ],
)
def test_a_credential_scoped_elsewhere_is_refused(signed_for: dict[str, str], text: str) -> None:
    refused = refusal(received(URL, sign("POST", URL, body=BODY, **signed_for)), gate(region="us-east-1"))  # type: ignore[arg-type]  # a row of a table

    assert (refused.code, refused.message) == ("InvalidSignatureException", text)


def test_every_region_is_taken_when_none_is_configured() -> None:
    assert admit(received(URL, sign("POST", URL, body=BODY, region="ap-southeast-2"))) == "ap-southeast-2"
    assert "valid region" in refusal(received(URL, sign("POST", URL, body=BODY, region="nowhere"))).message


BROKEN_AUTHORIZATIONS = {
    "AWS4-HMAC-SHA256 ": ("IncompleteSignatureException", "requires 'Credential' parameter."),
    "Basic abc": ("IncompleteSignatureException", "Authorization header requires 'Signature' parameter."),
    "AWS4-HMAC-SHA256 Credential=a/b": ("IncompleteSignatureException", "requires 'SignedHeaders' parameter."),
    "AWS4-HMAC-SHA256 Credential=a, b": ("IncompleteSignatureException", "'b' not a valid key=value pair"),
    "AWS4-HMAC-SHA256 Credential=a/b/c/d,SignedHeaders=host,Signature=x": (
        "IncompleteSignatureException",
        "Credential must have exactly 5 slash-delimited elements",
    ),
    "AWS4-ECDSA Credential=a/b/c/d/e,SignedHeaders=host,Signature=x": (
        "IncompleteSignatureException",
        "Unsupported AWS 'algorithm': 'AWS4-ECDSA'",
    ),
    "AWS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders=x,Signature=x": (
        "InvalidSignatureException",
        "'Host' or ':authority' must be a 'SignedHeader'",
    ),
    "AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/bedrock/aws3,SignedHeaders=host,Signature=x": (
        "InvalidSignatureException",
        "valid terminator: 'aws4_request', not 'aws3'. Date in Credential scope does not match YYYYMMDD",
    ),
}


@pytest.mark.parametrize("value", BROKEN_AUTHORIZATIONS)
def test_a_broken_authorization_is_refused_with_what_is_wrong_with_it(value: str) -> None:
    headers = with_header(sign("POST", URL, body=BODY), "authorization", value)
    code, text = BROKEN_AUTHORIZATIONS[value]

    refused = refusal(received(URL, headers))

    assert refused.code == code
    assert text in refused.message
    assert value not in refused.message


@pytest.mark.parametrize(("name", "value"), [("x-amz-date", None), ("x-amz-date", "yesterday")])
def test_a_date_must_be_there_and_be_one(name: str, value: str | None) -> None:
    headers = with_header(sign("POST", URL, body=BODY), name, value)

    assert refusal(received(URL, headers)).code == "IncompleteSignatureException"


def test_an_unknown_access_key_is_not_recognised() -> None:
    refused = refusal(received(URL, sign("POST", URL, body=BODY, credentials=Credentials("AKIDNOBODY", "x"))))

    assert refused.code == "UnrecognizedClientException"
    assert refused.message == "The security token included in the request is invalid."


def test_no_authorization_is_a_missing_token() -> None:
    assert refusal(received(URL, [("host", "example.com")])).code == "MissingAuthenticationTokenException"


@pytest.mark.parametrize("token", [None, "another-session-token"])
def test_a_missing_or_wrong_session_token_is_not_recognised(token: str | None) -> None:
    other = Credentials(TEMPORARY.access_key, TEMPORARY.secret_key, token)

    refused = refusal(received(URL, sign("POST", URL, body=BODY, credentials=other)))

    assert refused.code == "UnrecognizedClientException"


def test_a_session_token_must_be_signed() -> None:
    headers = [*sign("POST", URL, body=BODY), ("x-amz-security-token", "smuggled")]

    assert "'x-amz-security-token' must be a 'SignedHeader'" in refusal(received(URL, headers)).message


def test_expired_credentials_are_refused_as_aws_does() -> None:
    checked_by = gate()
    checked_by.expire(TEMPORARY.access_key)

    refused = refusal(received(URL, sign("POST", URL, body=BODY, credentials=TEMPORARY)), checked_by)

    assert (refused.code, refused.message) == (
        "ExpiredTokenException",
        "The security token included in the request is expired",
    )


def test_a_request_signed_with_the_http_date_is_let_in() -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    request = botocore.awsrequest.AWSRequest("POST", URL, data=BODY, headers={"Date": date})
    credentials = botocore.credentials.Credentials(DEFAULT_CREDENTIALS.access_key, DEFAULT_CREDENTIALS.secret_key)
    botocore.auth.SigV4Auth(credentials, "bedrock", "us-east-1").add_auth(request)
    headers = [("host", URL.split("/")[2]), *request.headers.items()]

    assert "X-Amz-Date" not in request.headers
    assert admit(received(URL, headers))
