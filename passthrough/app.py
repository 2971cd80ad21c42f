"""The composition root: settings in, a running service out. It wires; it decides nothing."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from passthrough import logs
from passthrough.admin.app import add_admin_routes
from passthrough.admin.spend import spend_endpoints
from passthrough.bedrock.endpoints import Endpoints
from passthrough.bedrock.operations import Service as ServiceName
from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.supplement import entries_of
from passthrough.errors import Refusal, Unavailable, UserError
from passthrough.identities import FixedIdentity, Identity
from passthrough.metrics import CONTENT_TYPE, Metrics
from passthrough.metrics_merged import merged_metrics
from passthrough.policy.credentials import Credentials
from passthrough.policy.estimates import Estimates
from passthrough.policy.keys import digest
from passthrough.policy.ledger import CallIds, uuid7
from passthrough.policy.pricing import Pricing, multipliers_of
from passthrough.probes import Probes
from passthrough.proxy.admit import Admit
from passthrough.proxy.authenticate import Authenticate
from passthrough.proxy.forward import Forward
from passthrough.proxy.handler import Handler
from passthrough.proxy.headers import RequestHeaders
from passthrough.proxy.outgoing import Compose
from passthrough.proxy.profiles import profiles
from passthrough.proxy.receive import Receive
from passthrough.proxy.record import Recorder
from passthrough.proxy.refuse import refuse
from passthrough.proxy.sign import Signer, canonical_query
from passthrough.settings import Settings
from passthrough.storage.allowances import Choices
from passthrough.storage.allowances_worker import open_allowances
from passthrough.storage.database import open_database
from passthrough.storage.keys import KeyDirectory, key_directory
from passthrough.storage.ledger import Ledger
from passthrough.webhooks import webhook
from passthrough.wire.dial import outbound_proxy, upstream_tls
from passthrough.wire.pool import Limits, Pool

PREFIXES = ("/bedrock", "/bedrock-runtime", "/bedrock-agent-runtime")
ANYTHING = r"/{rest:[\s\S]*}"  # a dot would leave out the paths with an encoded line feed


@dataclass(frozen=True, slots=True)
class Service:
    """What serving needs: the application, the handler whose calls it drains, and where they are recorded.

    `refused` counts the status of what was answered before it could become a call.
    """

    application: web.Application
    handler: Handler
    ledger: Ledger
    refused: Callable[[int], None]


@asynccontextmanager
async def service(
    settings: Settings,
    *,
    database_url: str,
    sandbox: Credentials | None = None,
    metrics_dir: Path | None = None,
) -> AsyncIterator[Service]:
    """Open everything that serving needs, in the order of birth; closed in reverse.

    `sandbox`: credentials of the stand-in, when it is the upstream. `metrics_dir`: the folder in which several
    workers put their metrics together. Raises `UserError` for settings that
    cannot work.
    """
    if not settings.master_key:
        raise UserError("PASSTHROUGH_MASTER_KEY is not set; set it to a long random text, such as sk-… of 32 letters.")
    metrics = Metrics()
    lines = logs.CallLog(enabled=settings.log_level in {"debug", "info"}, style=settings.log_format)
    async with AsyncExitStack() as stack:
        stack.callback(lines.close)
        database = await stack.enter_async_context(open_database(database_url))
        directory = await stack.enter_async_context(key_directory(database, outage_seconds=settings.key_cache_seconds))
        identity = (
            FixedIdentity("sandbox", sandbox)
            if sandbox
            else await stack.enter_async_context(Identity(region=settings.region, bearer=settings.bearer))
        )
        pool = await stack.enter_async_context(_pool(settings))
        compose = _compose(settings, identity)
        book = PriceBook(entries_of(settings.prices))
        multipliers = multipliers_of(settings.price_multipliers)
        resolver = await stack.enter_async_context(profiles(compose, pool, time.monotonic))
        send = None
        if settings.webhook_url:
            send = await stack.enter_async_context(webhook(settings.webhook_url, settings.webhook_secret or ""))
        holder = CallIds()(time.time())
        allowances = await stack.enter_async_context(
            open_allowances(
                database.connect,
                holder,
                settings.data_dir,
                estimates=Estimates(
                    book,
                    multipliers,
                    resolver.known,
                    assumed_output_tokens=settings.assumed_output_tokens,
                    bytes_per_token=settings.bytes_per_token,
                ),
                choices=Choices(
                    unpriced=settings.unpriced_under_budget,
                    budgets=settings.budgets_without_database,
                    rates=settings.rates_without_database,
                ),
                counters=metrics,
                send=send,
                stands_for=resolver.known,
            )
        )
        ledger = await stack.enter_async_context(
            Ledger(
                settings.data_dir / "journal",
                database.connect,
                name=holder,
                max_bytes=settings.journal_max_bytes,
                fsync_seconds=settings.journal_fsync_seconds,
            )
        )
        recorder = Recorder(
            ledger,
            lines=lines,
            counters=metrics,
            price=Pricing(book, multipliers, resolver.known),
            clock=time.time,
            monotonic=time.monotonic,
        )

        def accepting() -> None:
            if not ledger.writable():
                raise Unavailable(
                    "The proxy cannot record calls at the moment, try again later.", cause=ledger.problem() or ""
                )

        handler = Handler(
            record=recorder,
            authenticate=Authenticate(
                directory, master_digest=digest(settings.master_key), key_header=settings.key_header
            ),
            admit=Admit(
                default_region=settings.region, profiles=resolver, customers=directory.customer, clock=time.time
            ),
            receive=Receive(
                max_bytes=settings.max_body_bytes,
                buffered_bytes=settings.buffered_bodies_bytes,
                stall_seconds=settings.client_stall_seconds,
            ),
            headers=RequestHeaders(settings.key_header),
            limits=allowances,
            compose=compose,
            forward=_forward(settings, pool),
            accepting=accepting,
        )
        _watch(metrics, handler, directory, ledger, lines)
        exposition = metrics.exposition
        if metrics_dir is not None:
            exposition = (await stack.enter_async_context(merged_metrics(metrics_dir, exposition))).exposition
        application = web.Application(client_max_size=settings.max_body_bytes)
        application.on_response_prepare.append(_name_server)
        for prefix in PREFIXES:
            # the method, not the object: aiohttp takes an object for a function that is not async, and wraps it
            application.router.add_route("*", prefix + ANYTHING, handler.__call__)
        application.add_routes(_probes(settings, handler, ledger, exposition).routes())
        add_admin_routes(
            application,
            database=database,
            authenticate=handler.authenticate,
            clock=time.time,
            obeyed=directory.caught_up,
            more=spend_endpoints(database, time.time),
            reserved={digest(settings.master_key)},
        )
        application.router.add_route("*", ANYTHING, _no_such_route)
        yield Service(application, handler, ledger, metrics.request_refused)


def _pool(settings: Settings) -> Pool:
    return Pool(
        tls=upstream_tls(settings.ca_bundle),
        limits=Limits(connect_seconds=settings.connect_seconds, answer_seconds=settings.answer_seconds),
        proxy=outbound_proxy(settings.https_proxy, settings.no_proxy),
    )


def _compose(settings: Settings, identity: Identity | FixedIdentity) -> Compose:
    named: dict[ServiceName, str | None] = {
        "bedrock-runtime": settings.runtime_endpoint,
        "bedrock-agent-runtime": settings.agent_runtime_endpoint,
        "bedrock": settings.control_endpoint,
    }
    overrides = {name: url for name, url in named.items() if url}
    return Compose(
        identity=identity,
        endpoints=Endpoints(overrides, allow_http=settings.allow_http_upstream),
        signer=Signer(),
        canonical_query=canonical_query,
        clock=time.time,
    )


def _forward(settings: Settings, pool: Pool) -> Forward:
    return Forward(
        pool,
        stall_seconds=settings.client_stall_seconds,
        on_disconnect=settings.on_client_disconnect,
        drain_seconds=settings.disconnect_drain_seconds,
        drains=settings.disconnect_drains,
    )


def _watch(metrics: Metrics, handler: Handler, directory: KeyDirectory, ledger: Ledger, lines: logs.CallLog) -> None:
    """Show what others count."""
    keys = directory.counts
    metrics.watch("counter", "passthrough_lost_log_lines", "Log lines nobody took.", lambda: lines.lost)
    metrics.watch("gauge", "passthrough_open_calls", "Calls being served now.", lambda: len(handler.calls))
    bodies = "Bytes of request bodies held for open calls."
    metrics.watch("gauge", "passthrough_buffered_body_bytes", bodies, lambda: handler.receive.buffered)
    metrics.watch("gauge", "passthrough_cached_keys", "Keys known to this process.", lambda: len(directory))
    metrics.watch("counter", "passthrough_key_queries", "Queries for keys.", lambda: keys.queries)
    metrics.watch("counter", "passthrough_unknown_keys", "Keys that do not exist, asked for.", lambda: keys.absent)
    metrics.watch(
        "counter",
        "passthrough_unknown_keys_remembered",
        "Keys that do not exist, answered without asking.",
        lambda: keys.absent_remembered,
    )
    metrics.watch(
        "counter", "passthrough_stale_keys_served", "Keys served while PostgreSQL was away.", lambda: keys.stale_served
    )
    kept = "Calls of this process that are in PostgreSQL."
    metrics.watch("counter", "passthrough_ledger_stored_calls", kept, lambda: ledger.state().stored_calls)
    adopted = "Calls of dead processes, brought to PostgreSQL by this one."
    metrics.watch("counter", "passthrough_ledger_adopted_calls", adopted, lambda: ledger.state().adopted_calls)
    rejected = "Calls put aside because PostgreSQL refused their row."
    metrics.watch("counter", "passthrough_ledger_rejected_calls", rejected, lambda: ledger.state().rejected_calls)
    metrics.watch(
        "gauge", "passthrough_journal_bytes", "Journal not yet in PostgreSQL.", lambda: ledger.state().journal_bytes
    )


def _probes(settings: Settings, handler: Handler, ledger: Ledger, exposition: Callable[[], bytes]) -> Probes:
    return Probes(
        reasons=(lambda: "draining" if handler.draining else None, ledger.problem),
        exposition=exposition,
        metrics_token=settings.metrics_token,
        content_type=CONTENT_TYPE,
    )


async def _no_such_route(request: web.Request) -> web.Response:
    """What is neither a pass-through path nor one of ours."""
    message = f"There is nothing at {request.raw_path[:200]}: calls go to /bedrock/…, the admin API is at /docs."
    # in AWS's shape too: an SDK whose base URL lacks the prefix ends here, and should show the sentence
    return refuse(Refusal(404, "UnknownOperationException", message), uuid7(time.time()))


async def _name_server(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001  # the interface
    response.headers["Server"] = "passthrough"  # aiohttp would name itself and Python, with their versions
