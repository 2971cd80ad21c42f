"""Who may call: the credentials that the sandbox knows, and what AWS says to those it does not know."""

import hmac
import re
from collections.abc import Sequence

from passthrough.errors import Refusal
from passthrough.policy.credentials import Credentials
from passthrough.sandbox import sigv4
from passthrough.sandbox.exchange import Received

# The defaults open nothing but a sandbox: they may stand in READMEs and test suites.
DEFAULT_CREDENTIALS = Credentials("AKIDSANDBOX000000000", "passthrough-sandbox-secret-access-key")
DEFAULT_BEARER_TOKEN = "ABSKpassthrough-sandbox-api-key"  # noqa: S105  # a documented value, no secret
DEFAULT_REGION = "us-east-1"  # a Bedrock API key carries no region

# What Bedrock API keys begin with: long-term keys, short-term keys.
_API_KEY = re.compile(r"(ABSK|bedrock-api-key-).+")


class BadBearer(Refusal):
    """An API key that is not good: AWS answers with a capital `Message`."""


class Gate:
    """Lets in whoever signs with one of the credentials, or shows the API key where AWS takes one."""

    def __init__(self, credentials: Sequence[Credentials], *, bearer_token: str | None, region: str | None) -> None:
        self._known = {one.access_key: one for one in credentials}
        self._expired: set[str] = set()
        self._bearer_token = bearer_token
        self._region = region

    def expire(self, access_key: str) -> None:
        """From now on, requests signed with this key get `ExpiredTokenException`."""
        self._expired.add(access_key)

    def admit(self, received: Received, *, takes_bearer: bool, now: float) -> str:
        """The region that the call is for; raises `Refusal` as AWS would."""
        authorization = received.header("authorization")
        if not authorization:
            raise Refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if authorization[:7].lower() == "bearer ":
            return self._admit_bearer(authorization[7:].strip(), takes_bearer=takes_bearer)
        claim = sigv4.read_claim(received, now=now, region=self._region)
        credentials = self._known.get(claim.access_key)
        if credentials is None:
            raise _unrecognized()
        if claim.access_key in self._expired:
            raise Refusal(403, "ExpiredTokenException", "The security token included in the request is expired")
        sigv4.verify(received, claim, credentials.secret_key)
        if received.header("x-amz-security-token") != credentials.token:
            raise _unrecognized()
        return claim.region

    def _admit_bearer(self, token: str, *, takes_bearer: bool) -> str:
        """Admits an API key, where AWS takes one.

        Agents for Amazon Bedrock take none (https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html).
        How that refusal is worded is not documented; the others are quoted in public bug reports.
        """
        if not takes_bearer:
            raise BadBearer(403, "AccessDeniedException", "Bedrock API keys cannot be used with this operation.")
        known = self._bearer_token
        if known is not None and hmac.compare_digest(_raw(token), _raw(known)):
            return self._region or DEFAULT_REGION
        if not _API_KEY.fullmatch(token):
            raise BadBearer(403, "AccessDeniedException", "Invalid API Key format: Must start with pre-defined prefix")
        raise BadBearer(403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _unrecognized() -> Refusal:
    return Refusal(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
