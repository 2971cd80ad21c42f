"""Who is calling: the headers in which a virtual key can stand, and the directory that knows it.

The places and their order are LiteLLM's, so that its users change nothing but the address. A key is hashed
the moment it is read; it is compared as a digest, in constant time where it could be the master key.
"""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import unquote_plus

import msgspec

from passthrough.bedrock.operations import Call
from passthrough.errors import Refusal, invalid, unauthenticated
from passthrough.policy.keys import MASTER, VirtualKey, digest

# The text for a key that does not exist is one and the same: it tells nothing about which exist.
UNKNOWN_KEY = "The virtual key is not valid: ask your administrator for one and pass it as your credential."
NO_KEY = (
    "No virtual key was passed: send it as 'Authorization: Bearer KEY', as 'x-api-key', "
    "or as the access key id of your AWS client."
)

_PLAIN_PLACES = ("litellm_user_api_key", "x-litellm-api-key", "x-api-key", "api-key")
_SIGV4_PREFIX = "AWS4-HMAC-SHA256"
_SCOPE_PARTS = 4  # DATE/REGION/SERVICE/aws4_request


class KeyDirectory(Protocol):
    """Where keys are known by their digest."""

    def cached(self, key_id: str) -> VirtualKey | None: ...

    async def find(self, key_id: str) -> VirtualKey | None:
        """None when there is no such key; `Unavailable` when that cannot be found out at the moment."""


class Caller(msgspec.Struct, frozen=True, gc=False):
    """A key, the secret it was presented as, and the region of the client's own signature, if any."""

    key: VirtualKey
    secret: str
    scope_region: str | None

    def __repr__(self) -> str:
        return f"Caller({self.key!r}, scope_region={self.scope_region!r})"  # whatever prints it, prints no secret

    def check_address(self, call: Call) -> None:
        """Refuse a call whose address holds the key: addresses go upstream as they are, and into everybody's logs."""
        secret = self.secret
        found = secret in call.path
        for label in call.labels.values():
            found = found or secret in label
        if found or (call.query and (secret in call.query or secret in unquote_plus(call.query))):
            raise invalid("The path or query holds the virtual key: send it in a header alone, and have it replaced.")


class Authenticate:
    """`master_digest`: of the administrator's key. `key_header`: one more place, before all others."""

    def __init__(self, directory: KeyDirectory, *, master_digest: str, key_header: str | None = None) -> None:
        self._directory = directory
        self._master_digest = master_digest
        self._places = (key_header, *_PLAIN_PLACES) if key_header else _PLAIN_PLACES

    def known(self, headers: Mapping[str, str]) -> Caller | None:
        """Return the caller whose key is known in this process: nearly every one, without a task's detour."""
        secret, region = self._presented(headers)
        key = self._directory.cached(digest(secret))
        return Caller(key, secret, region) if key is not None else None

    async def __call__(self, headers: Mapping[str, str]) -> Caller:
        """Find the caller; raises 401 for no or an unknown key, `Unavailable` while nobody can tell.

        Whether the key may be used at all (blocked, expired) is for admission to say.
        """
        secret, region = self._presented(headers)
        key_id = digest(secret)
        key = self._directory.cached(key_id)
        if key is None:
            if hmac.compare_digest(key_id, self._master_digest):
                return Caller(MASTER, secret, region)
            key = await self._directory.find(key_id)
        if key is None:
            raise unauthenticated(UNKNOWN_KEY)
        return Caller(key, secret, region)

    def _presented(self, headers: Mapping[str, str]) -> tuple[str, str | None]:
        authorization = headers.get("Authorization")
        for place in self._places:
            value = headers.get(place)
            if value:
                return _without_bearer(value.strip()), _scope_region(authorization)
        if not authorization:
            raise unauthenticated(NO_KEY)
        return read_authorization(authorization)


def read_authorization(value: str) -> tuple[str, str | None]:
    """The key in an `Authorization` header, and the region of its credential scope if it is a signature."""
    scheme, _, rest = value.strip().partition(" ")
    rest = rest.strip()
    match scheme.lower():
        case "bearer" if rest:
            return rest, None
        case "basic" if rest:
            return _from_basic(rest), None
        case "aws4-hmac-sha256":
            return _from_signature(rest)
        case _:
            raise _malformed()


def _scope_region(authorization: str | None) -> str | None:
    """The region that a client signed for whose key stands elsewhere; its signature may be of any kind."""
    if authorization is None or not authorization.startswith(_SIGV4_PREFIX):
        return None
    try:
        return read_authorization(authorization)[1]
    except Refusal:
        return None


def _from_signature(parameters: str) -> tuple[str, str | None]:
    for parameter in parameters.split(","):
        name, _, value = parameter.strip().partition("=")
        if name == "Credential":
            # from the right: a key may hold slashes
            parts = value.rsplit("/", _SCOPE_PARTS)
            if len(parts) == _SCOPE_PARTS + 1 and parts[0]:
                return _without_bearer(parts[0]), parts[2]
    raise _malformed()


def _from_basic(value: str) -> str:
    """LiteLLM takes the key itself after `Basic`; curl -u sends it as user name or password."""
    try:
        user, colon, password = b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return value
    return (password or user) if colon else value


def _without_bearer(value: str) -> str:
    return value[7:].lstrip() if value[:7].lower() == "bearer " else value


def _malformed() -> Refusal:
    return unauthenticated(
        "The Authorization header is malformed: send 'Bearer KEY', or sign with the key as the access key id."
    )
