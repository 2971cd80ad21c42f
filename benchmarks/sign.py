"""What a signature costs: ours beside botocore's `SigV4Auth` and AWS's C library, on the same requests.

    uv run python benchmarks/sign.py [signatures a round]

CPU time of the process, all threads (the C library signs on its own); the rounds of the signers alternate, so
that a busy machine slows all of them, and the fastest round of each counts. Before anything is measured, all
three must give the same signature.
"""

import hashlib
import sys
import time
from collections.abc import Callable

import awscrt.auth
import awscrt.http
import botocore.auth
import botocore.awsrequest
import botocore.credentials

from passthrough.policy.credentials import Credentials
from passthrough.proxy.sign import Signer

ROUNDS = 7
HOST = "bedrock-runtime.us-east-1.amazonaws.com"
PATH = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
BODY = b'{"messages": [{"role": "user", "content": [{"text": "hi"}]}]}'
PAYLOAD_SHA256 = hashlib.sha256(BODY).hexdigest()  # the forwarder has it; botocore works it out, about 0.3 µs here
CONTENT_TYPE = ("Content-Type", "application/json")  # all that is signed of what boto3 sends
SIGNED = [("Host", HOST), CONTENT_TYPE]


def ours(credentials: Credentials) -> Callable[[], str]:
    signer = Signer()

    def sign() -> str:
        added = signer.sign(
            method="POST",
            path=PATH,
            query="",
            host=HOST,
            headers=[CONTENT_TYPE],
            payload_sha256=PAYLOAD_SHA256,
            credentials=credentials,
            region="us-east-1",
            timestamp=time.time(),
        )
        return dict(added)["Authorization"]

    return sign


def with_botocore(credentials: Credentials) -> Callable[[], str]:
    keys = botocore.credentials.Credentials(credentials.access_key, credentials.secret_key, credentials.token)
    signer = botocore.auth.SigV4Auth(keys, "bedrock", "us-east-1")

    def sign() -> str:
        request = botocore.awsrequest.AWSRequest("POST", f"https://{HOST}{PATH}", headers=dict(SIGNED), data=BODY)
        signer.add_auth(request)
        return str(request.headers["Authorization"])

    return sign


def with_crt(credentials: Credentials) -> Callable[[], str]:
    keys = awscrt.auth.AwsCredentialsProvider.new_static(
        credentials.access_key, credentials.secret_key, credentials.token
    )

    def sign() -> str:
        request = awscrt.http.HttpRequest("POST", PATH, awscrt.http.HttpHeaders(SIGNED))
        config = awscrt.auth.AwsSigningConfig(
            algorithm=awscrt.auth.AwsSigningAlgorithm.V4,
            signature_type=awscrt.auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=keys,
            region="us-east-1",
            service="bedrock",
            signed_body_value=PAYLOAD_SHA256,
            signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType.NONE,
        )
        awscrt.auth.aws_sign_request(request, config).result()
        return str(request.headers.get("Authorization"))

    return sign


def microseconds(sign: Callable[[], str], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        sign()
    return (time.process_time() - started) / count * 1e6


def agree(signers: dict[str, Callable[[], str]]) -> bool:
    """Say whether all sign alike; a second try is for the second that passed between two of them."""
    return any(len({sign() for sign in signers.values()}) == 1 for _ in range(2))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    for title, token in (("long-lived credentials", None), ("with a session token of 900 characters", "T" * 900)):
        credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
        signers = {
            "passthrough": ours(credentials),
            "botocore SigV4Auth": with_botocore(credentials),
            "awscrt": with_crt(credentials),
        }
        if not agree(signers):
            sys.exit("The signers disagree: nothing was measured.")
        times: dict[str, list[float]] = {name: [] for name in signers}
        for _ in range(ROUNDS):
            for name, sign in signers.items():
                times[name].append(microseconds(sign, count))
        best = {name: min(rounds) for name, rounds in times.items()}
        print(f"{title}: CPU µs per signature, best of {ROUNDS} rounds of {count}")
        for name, value in best.items():
            print(f"  {name:20} {value:7.2f}   x {value / best['passthrough']:5.1f}")


if __name__ == "__main__":
    main()
