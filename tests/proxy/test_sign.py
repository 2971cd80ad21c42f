"""Signatures against AWS's published vectors, botocore and AWS's C library, and the care taken of secrets."""

import dataclasses
import hashlib
import hmac
import re
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passthrough.errors import Unavailable
from passthrough.policy.credentials import Credentials
from passthrough.proxy import sign
from passthrough.proxy.sign import Signer, canonical_query, canonical_uri, canonical_value, signing_key
from tests.proxy import sigv4_vectors as aws
from tests.proxy.sigv4_oracles import by_botocore, by_crt, by_us
from tests.proxy.sigv4_requests import QUERIES, REQUESTS, Request

SIGNER = Signer()
"""One for the module, so that generated requests also meet caches that other requests have filled."""

NEVER_SIGNED = [
    ("Accept", "*/*"),
    ("User-Agent", "Boto3/1.44.5"),
    ("amz-sdk-invocation-id", "cd025f46-98fe-4d70-afcb-cd72324e3e23"),
    ("X-Amzn-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("Content-Length", "2"),
    ("X-Amzon", "no prefix of AWS's"),
]
PRESIGNING = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K%2F20260101&x-amz-date=2&X-AMZ-EXPIRES=60"
    "&X-Amz-SignedHeaders=host&X-Amz-Signature=00&X%2DAmz-Security-Token=t"
)
UNRESERVED = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*")


@pytest.mark.parametrize("vector", aws.VECTORS, ids=lambda vector: vector.name)
def test_aws_s_own_vectors_are_reproduced(vector: aws.Vector) -> None:
    pairs = [("Host", aws.HOST), ("X-Amz-Date", aws.AMZ_DATE), *vector.headers]
    if vector.token:
        pairs.append(("X-Amz-Security-Token", vector.token))
    block, names = sign.canonical_headers([(name.lower().encode(), canonical_value(value)) for name, value in pairs])
    uri = canonical_uri(vector.path) if vector.normalized else quote(vector.path)
    request = sign.canonical_request(
        vector.method, uri, canonical_query(vector.query), block, names, hashlib.sha256(vector.body).hexdigest()
    )
    scope = f"{aws.AMZ_DATE[:8]}/{aws.REGION}/{aws.SERVICE}/aws4_request"
    key = signing_key(aws.SECRET_KEY, aws.AMZ_DATE[:8], aws.REGION, aws.SERVICE)

    to_sign = sign.string_to_sign(aws.AMZ_DATE, scope, hashlib.sha256(request).hexdigest())

    assert hmac.digest(key, to_sign, "sha256").hex() == vector.signature


@pytest.mark.parametrize(
    "vector",
    [vector for vector in aws.VECTORS if vector.normalized and not vector.headers],
    ids=lambda vector: vector.name,
)
def test_the_signer_itself_reproduces_the_vectors_that_sign_no_further_header(vector: aws.Vector) -> None:
    added = dict(
        Signer(aws.SERVICE).sign(
            method=vector.method,
            path=vector.path,
            query=canonical_query(vector.query),
            host=aws.HOST,
            headers=(),
            payload_sha256=hashlib.sha256(vector.body).hexdigest(),
            credentials=Credentials(aws.ACCESS_KEY, aws.SECRET_KEY, vector.token),
            region=aws.REGION,
            timestamp=aws.TIMESTAMP + 0.999,
        )
    )

    token = {"X-Amz-Security-Token": vector.token} if vector.token else {}
    names = "host;x-amz-date;x-amz-security-token" if vector.token else "host;x-amz-date"
    assert added == {
        "X-Amz-Date": aws.AMZ_DATE,
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={vector.signature}",
        **token,
    }


def test_all_38_cases_of_the_suite_are_here() -> None:
    assert len({vector.name for vector in aws.VECTORS}) == len(aws.VECTORS) == 38


@settings(deadline=None, max_examples=300)
@given(REQUESTS)
def test_any_request_is_signed_as_botocore_and_the_crt_sign_it(request_: Request) -> None:
    ours = by_us(request_, signer=SIGNER, unsigned=NEVER_SIGNED)

    assert ours == by_botocore(request_)
    assert ours == by_crt(request_)


@settings(deadline=None, max_examples=200)
@given(QUERIES)
def test_a_raw_query_is_made_what_the_crt_reproduces_from_it(raw: str) -> None:
    canonical = canonical_query(raw)

    assert by_us(Request(query=canonical), signer=SIGNER) == by_crt(Request(query=raw))


@pytest.mark.parametrize("query", ["z=1&a=2", "a=2&a=1", "a-b=1&a=1", "a=%2F&a=%21&a="])
def test_a_query_keeps_its_order_and_is_signed_sorted(query: str) -> None:
    assert canonical_query(query) == query
    assert by_us(Request(query=query), signer=SIGNER) == by_crt(Request(query=query))


@settings(max_examples=300)
@given(st.text(max_size=30))
def test_a_canonical_query_has_one_spelling_and_stays_as_it_is(raw: str) -> None:
    raw = raw.encode("utf-8", "ignore").decode()
    canonical = canonical_query(raw)

    assert canonical_query(canonical) == canonical
    pairs = [tuple(pair.split("=")) for pair in canonical.split("&") if pair]
    assert all(UNRESERVED.fullmatch(name) and UNRESERVED.fullmatch(value) for name, value in pairs)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("", ""),
        ("maxResults=2&nextToken=a%20b%2B%2F%3D", "maxResults=2&nextToken=a%20b%2B%2F%3D"),
        ("nextToken=a+b", "nextToken=a%2Bb"),
        ("x=1:2/3", "x=1%3A2%2F3"),
        ("flag", "flag="),
        ("b=1&&a=2&", "b=1&a=2"),
        ("a=2&a=1", "a=2&a=1"),
        ("a=b=c", "a=b%3Dc"),
        ("a=%c3%a9", "a=%C3%A9"),
        ("a=%zz&b=%", "a=%25zz&b=%25"),
        ("a=\udcff", "a=%FF"),
        (f"{PRESIGNING}&X-Amz-Datum=kept&z=1", "X-Amz-Datum=kept&z=1"),
    ],
)
def test_a_query_is_rewritten_once_and_loses_its_presigning(raw: str, canonical: str) -> None:
    assert canonical_query(raw) == canonical


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/model/a%3A0/invoke", "/model/a%253A0/invoke"),
        ("/model/a%3a0/invoke", "/model/a%253a0/invoke"),
        ("/model/a:0/invoke", "/model/a%3A0/invoke"),
        ("/model/arn%3Aaws%3Abedrock%2Fx/converse", "/model/arn%253Aaws%253Abedrock%252Fx/converse"),
        ("/model/arn:aws:bedrock/x/converse", "/model/arn%3Aaws%3Abedrock/x/converse"),
        ("/a:/b", "/a%3A/b"),
        ("/sessions/", "/sessions/"),
        ("//sessions//s-1/./x/../", "/sessions/s-1/"),
        ("/a/%2e%2e/b", "/a/%252e%252e/b"),
        ("/\udcc3\udca9\udcff", "/%C3%A9%FF"),
        ("", "/"),
    ],
)
def test_a_raw_path_is_encoded_once_more(path: str, uri: str) -> None:
    assert canonical_uri(path) == uri


def test_white_space_is_ascii_s_alone_and_bytes_that_are_no_text_are_signed_as_they_are() -> None:
    assert canonical_value(" a \t b\u00a0 c\udcff ") == b"a b\xc2\xa0 c\xff"


def test_only_the_host_the_content_type_and_aws_s_own_headers_are_signed() -> None:
    headers = (
        ("X-Amzn-Bedrock-Trace", "ENABLED"),
        ("Content-Type", "application/json"),
        ("x-amz-source-arn", "00"),
    )

    authorization = by_us(Request(headers=headers), signer=Signer(), unsigned=NEVER_SIGNED)

    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-source-arn;x-amzn-bedrock-trace," in authorization


@pytest.mark.parametrize("changed", [{"secret_key": "second"}, {"access_key": "AKIDOTHER"}, {"token": "session-2"}])
def test_rotated_credentials_never_sign_with_what_was_kept_of_their_predecessor(changed: dict[str, str]) -> None:
    signer = Signer()
    first = Request(credentials=Credentials("AKIDEXAMPLE", "first", "session-1"))
    rotated = dataclasses.replace(first, credentials=dataclasses.replace(first.credentials, **changed))

    before = by_us(first, signer=signer)

    assert by_us(rotated, signer=signer) == by_crt(rotated) != before
    assert by_us(first, signer=signer) == before


def test_midnight_and_another_region_take_another_signing_key() -> None:
    signer = Signer()
    evening = Request(timestamp=1_799_971_199)  # 2027-01-14T23:59:59Z
    requests = [
        evening,
        dataclasses.replace(evening, timestamp=evening.timestamp + 1),
        dataclasses.replace(evening, region="eu-west-1"),
    ]

    answers = [by_us(request, signer=signer) for request in requests]

    assert answers == [by_crt(request) for request in requests]
    assert "/20270114/us-east-1/" in answers[0]
    assert "/20270115/us-east-1/" in answers[1]


def test_what_is_kept_is_bounded_whatever_clients_send() -> None:
    signer = Signer()
    for number in range(3000):
        by_us(
            Request(path=f"/agents/{number}", region=f"r-{number}", timestamp=number),
            signer=signer,
            unsigned=[(f"x-amz-{number}", "")],
        )
    by_us(Request(path="/" + "a" * 8000), signer=signer)

    assert signer._seals.cache_info().currsize == sign.SEALS_KEPT
    assert signer._uris.cache_info().currsize == sign.PATHS_KEPT
    assert signer._forms.cache_info().currsize == sign.FORMS_KEPT
    assert signer._dates.cache_info().currsize == 2


def test_a_path_too_long_to_keep_is_signed_all_the_same() -> None:
    signer = Signer()
    request = Request(path="/model/" + "a%3A" * 500 + "/converse")

    assert by_us(request, signer=signer) == by_crt(request)
    assert signer._uris.cache_info().currsize == 0


def test_a_repeated_call_derives_nothing_anew() -> None:
    signer = Signer()
    for _ in range(5):
        by_us(Request(), signer=signer)

    assert (signer._forms.cache_info().hits, signer._forms.cache_info().misses) == (4, 1)
    for cache in (signer._seals, signer._dates, signer._uris):
        assert (cache.cache_info().hits, cache.cache_info().misses) == (0, 1)


def test_secrets_are_in_no_repr() -> None:
    credentials = Credentials("AKIDEXAMPLE", "the-secret", "the-token")
    seal = sign._seal("bedrock", "AKIDEXAMPLE", "the-secret", "the-token", "20270114", "us-east-1")

    assert repr(credentials) == "Credentials(access_key='AKIDEXAMPLE')"
    assert "secret" not in repr(seal)
    assert "token" not in repr(seal)


@pytest.mark.parametrize(
    "parts", [("AKID\n", "s", None), ("AKID", "made-up\r", None), ("AKID", "s", "made-up\ud800"), ("AKID", "é", None)]
)
def test_credentials_that_cannot_stand_in_a_header_are_refused_without_being_shown(
    parts: tuple[str, str, str | None],
) -> None:
    with pytest.raises(Unavailable) as refused:
        Credentials(*parts)

    assert refused.value.status == 503
    told = f"{refused.value!r} {refused.value.__context__!r}"
    assert not any(part in told for part in parts if part and len(part) > 2)
    assert "write it again" in refused.value.cause
    assert "made-up" not in refused.value.cause
