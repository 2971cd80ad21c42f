"""A request as it goes upstream: chosen headers, a signature or a bearer token, and the bytes of the body.

Used by step 4. The path goes up as it came; the query is brought to its one canonical spelling, because AWS
checks the signature against that.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

import msgspec

from passthrough.bedrock.endpoints import Endpoint, accepts_bearer
from passthrough.bedrock.operations import Body, Call, Service
from passthrough.policy.credentials import Credentials
from passthrough.proxy.headers import Forwarded
from passthrough.wire.dial import Address

PLACES_KEPT = 256  # services by regions: AWS has a few dozen, clients may name more
EMPTY_SHA256 = sha256(b"").hexdigest()


class Identity(Protocol):
    """An AWS identity; `current` never blocks and raises `Unavailable` when it has no credentials."""

    @property
    def name(self) -> str: ...
    @property
    def bearer(self) -> str | None: ...
    def current(self) -> Credentials: ...


class Endpoints(Protocol):
    """Where a service listens in a region."""

    def of(self, service: Service, region: str) -> Endpoint: ...


class Signs(Protocol):
    """SigV4: returns the headers to add."""

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
    ) -> list[tuple[str, str]]: ...


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A signed request. `body` is None when it is still on its way from the client and goes up as it comes."""

    address: Address
    method: str
    head: bytes
    body: Body | None


class Payload(msgspec.Struct, frozen=True, gc=False):
    """The body of a request: its bytes, or its length alone while they are on their way.

    `sha256` is the hash that is signed; `hash_is_the_clients` that it came in `x-amz-content-sha256`, which
    AWS then checks itself.
    """

    body: Body | None
    length: int
    sha256: str
    hash_is_the_clients: bool


class Compose:
    """Builds the request for the upstream. `clock` gives seconds since 1970."""

    def __init__(
        self,
        *,
        identity: Identity,
        endpoints: Endpoints,
        signer: Signs,
        canonical_query: Callable[[str], str],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._endpoints = endpoints
        self._signer = signer
        self._canonical_query = canonical_query
        self._clock = clock
        self._place = lru_cache(PLACES_KEPT)(self._find_place)

    @property
    def identity_name(self) -> str:
        return self._identity.name

    def __call__(self, method: str, call: Call, region: str, forwarded: Forwarded, payload: Payload) -> Outgoing:
        """Raises `Unavailable` when there are no credentials to sign with."""
        endpoint, address = self._place(call.operation.service, region)
        path = endpoint.base_path + call.path
        query = self._canonical_query(call.query) if call.query else ""
        bearer = self._identity.bearer
        if bearer and not accepts_bearer(call.operation.service):
            bearer = None
        signed = forwarded.signed
        own: list[tuple[str, str]] = []
        if payload.hash_is_the_clients and not bearer:
            own.append(("x-amz-content-sha256", payload.sha256))
            signed = [*signed, *own]
        if bearer:
            own.append(("Authorization", f"Bearer {bearer}"))
        else:
            own += self._signer.sign(
                method=method,
                path=path,
                query=query,
                host=endpoint.host_header,
                headers=signed,
                payload_sha256=payload.sha256,
                credentials=self._identity.current(),
                region=region,
                timestamp=self._clock(),
            )
        target = f"{path}?{query}" if query else path
        head = f"{method} {target} HTTP/1.1\r\nHost: {endpoint.host_header}\r\n".encode("utf-8", "surrogateescape")
        added = "".join([f"{name}: {value}\r\n" for name, value in own]).encode("utf-8", "surrogateescape")
        length = b"" if method in {"GET", "HEAD"} and not payload.length else b"Content-Length: %d\r\n" % payload.length
        whole = b"".join((head, forwarded.lines, added, length, b"\r\n"))
        return Outgoing(address, method, whole, payload.body)

    def _find_place(self, service: Service, region: str) -> tuple[Endpoint, Address]:
        endpoint = self._endpoints.of(service, region)
        return endpoint, Address(endpoint.host, endpoint.port, endpoint.scheme == "https")
