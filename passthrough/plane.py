"""The data plane as the settings want it: the steps of a call, and the way upstream. It wires; it decides nothing."""

import time
from collections.abc import Callable

from passthrough.bedrock.endpoints import Endpoints
from passthrough.bedrock.operations import Service
from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.supplement import entries_of
from passthrough.policy.estimates import Estimates
from passthrough.policy.pricing import Pricing, multipliers_of
from passthrough.proxy.admit import Admit, Limits, Profiles
from passthrough.proxy.authenticate import Authenticate
from passthrough.proxy.forward import Forward
from passthrough.proxy.handler import Handler
from passthrough.proxy.headers import RequestHeaders
from passthrough.proxy.outgoing import Compose, Identity
from passthrough.proxy.receive import Receive
from passthrough.proxy.record import Recorder
from passthrough.proxy.sign import Signer, canonical_query
from passthrough.settings import Settings
from passthrough.storage.keys import KeyDirectory
from passthrough.wire import pool as wire
from passthrough.wire.dial import outbound_proxy, upstream_tls
from passthrough.wire.pool import Pool


def pool(settings: Settings) -> Pool:
    """Return the connections to AWS, to be opened."""
    return Pool(
        tls=upstream_tls(settings.ca_bundle),
        limits=wire.Limits(connect_seconds=settings.connect_seconds, answer_seconds=settings.answer_seconds),
        proxy=outbound_proxy(settings.https_proxy, settings.no_proxy),
    )


def endpoints(settings: Settings) -> Endpoints:
    """Return where AWS's services are."""
    named: dict[Service, str | None] = {
        "bedrock-runtime": settings.runtime_endpoint,
        "bedrock-agent-runtime": settings.agent_runtime_endpoint,
        "bedrock": settings.control_endpoint,
    }
    overrides = {name: url for name, url in named.items() if url}
    return Endpoints(overrides, allow_http=settings.allow_http_upstream)


def compose(settings: Settings, identity: Identity) -> Compose:
    """Return what builds and signs requests, for the endpoints of the settings."""
    return Compose(
        identity=identity,
        endpoints=endpoints(settings),
        signer=Signer(),
        canonical_query=canonical_query,
        clock=time.time,
    )


def prices(settings: Settings, stands_for: Callable[[str], str | None]) -> tuple[Estimates, Pricing]:
    """Return what a call can cost at most, and what it has cost; `stands_for` knows the models behind profiles."""
    book = PriceBook(entries_of(settings.prices))
    multipliers = multipliers_of(settings.price_multipliers)
    estimates = Estimates(
        book,
        multipliers,
        stands_for,
        assumed_output_tokens=settings.assumed_output_tokens,
        bytes_per_token=settings.bytes_per_token,
    )
    return estimates, Pricing(book, multipliers, stands_for)


def handler(
    settings: Settings,
    *,
    master_digest: str,
    record: Recorder,
    directory: KeyDirectory,
    profiles: Profiles,
    limits: Limits,
    compose: Compose,
    pool: Pool,
    accepting: Callable[[], None],
) -> Handler:
    """Return the handler of every pass-through call."""
    return Handler(
        record=record,
        authenticate=Authenticate(directory, master_digest=master_digest, key_header=settings.key_header),
        admit=Admit(default_region=settings.region, profiles=profiles, customers=directory.customer, clock=time.time),
        receive=Receive(
            max_bytes=settings.max_body_bytes,
            buffered_bytes=settings.buffered_bodies_bytes,
            stall_seconds=settings.client_stall_seconds,
        ),
        headers=RequestHeaders(settings.key_header),
        limits=limits,
        compose=compose,
        forward=Forward(
            pool,
            stall_seconds=settings.client_stall_seconds,
            on_disconnect=settings.on_client_disconnect,
            drain_seconds=settings.disconnect_drain_seconds,
            drains=settings.disconnect_drains,
        ),
        accepting=accepting,
    )
