"""The two other implementations of SigV4 that ours must agree with: botocore's in Python and AWS's in C (CRT)."""

import hashlib
from collections.abc import Sequence
from unittest import mock

import awscrt.auth
import awscrt.http
import botocore.auth
import botocore.awsrequest
import botocore.credentials

from passthrough.proxy.headers import RequestHeaders
from passthrough.proxy.sign import Signer
from tests.proxy.sigv4_requests import Request

_HEADERS = RequestHeaders()


def by_us(request: Request, *, signer: Signer, unsigned: Sequence[tuple[str, str]] = ()) -> str:
    """Sign with ours, among headers that stay out of the signature."""
    fields = [
        (name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in (*unsigned, *request.headers)
    ]
    added = signer.sign(
        method=request.method,
        path=request.path,
        query=request.query,
        host=request.host,
        headers=_HEADERS.choose(fields, "a key that no field holds").signed,
        payload_sha256=hashlib.sha256(request.body).hexdigest(),
        credentials=request.credentials,
        region=request.region,
        timestamp=request.timestamp,
    )
    return dict(added)["Authorization"]


def by_botocore(request: Request) -> str:
    keys = request.credentials
    message = botocore.awsrequest.AWSRequest(
        method=request.method, url=f"https://{request.host}{request.target}", data=request.body
    )
    message.headers["Host"] = request.host
    for name, value in request.headers:
        message.headers.add_header(name, value)
    signer = botocore.auth.SigV4Auth(
        botocore.credentials.Credentials(keys.access_key, keys.secret_key, keys.token), "bedrock", request.region
    )
    with mock.patch("botocore.auth.get_current_datetime", return_value=request.when.replace(tzinfo=None)):
        signer.add_auth(message)
    return str(message.headers["Authorization"])


def by_crt(request: Request) -> str:
    keys = request.credentials
    headers = awscrt.http.HttpHeaders([("Host", request.host), *request.headers])
    message = awscrt.http.HttpRequest(method=request.method, path=request.target, headers=headers)
    config = awscrt.auth.AwsSigningConfig(
        algorithm=awscrt.auth.AwsSigningAlgorithm.V4,
        signature_type=awscrt.auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=awscrt.auth.AwsCredentialsProvider.new_static(
            keys.access_key, keys.secret_key, keys.token
        ),
        region=request.region,
        service="bedrock",
        date=request.when,
        use_double_uri_encode=True,
        should_normalize_uri_path=True,
        signed_body_value=hashlib.sha256(request.body).hexdigest(),
        signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType.NONE,
    )
    awscrt.auth.aws_sign_request(message, config).result(timeout=10)
    return str(dict(message.headers)["Authorization"])
