"""The composition root: settings in, a running service out. It wires; it decides nothing."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from passthrough import logs, plane
from passthrough.admin.app import add_admin_routes
from passthrough.admin.spend import spend_endpoints
from passthrough.errors import Refusal, Unavailable, UserError
from passthrough.identities import FixedIdentity, Identity
from passthrough.metrics import CONTENT_TYPE, Metrics
from passthrough.metrics_merged import merged_metrics
from passthrough.output import STANDARD
from passthrough.policy.credentials import Credentials
from passthrough.policy.estimates import Estimates
from passthrough.policy.keys import digest
from passthrough.policy.ledger import CallIds, uuid7
from passthrough.probes import Probes, Reason
from passthrough.proxy.handler import Handler
from passthrough.proxy.outgoing import Identity as Signing
from passthrough.proxy.profiles import Profiles, profiles
from passthrough.proxy.record import Recorder
from passthrough.proxy.refuse import refuse
from passthrough.settings import Settings
from passthrough.storage.allowances import Allowances, Choices
from passthrough.storage.allowances_worker import open_allowances
from passthrough.storage.database import Database, open_database
from passthrough.storage.keys import KeyDirectory, key_directory
from passthrough.storage.ledger import Ledger
from passthrough.webhooks import webhook

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


def check(settings: Settings) -> None:
    """Raise `UserError` for settings that cannot work, before anything is begun with them."""
    plane.pool(settings)
    plane.endpoints(settings)
    plane.prices(settings, lambda _: None)
    if settings.webhook_url and not settings.webhook_secret:
        raise UserError("PASSTHROUGH_WEBHOOK_SECRET is not set: set it to a long random text that the receiver knows.")


@asynccontextmanager
async def service(
    settings: Settings,
    *,
    database_url: str,
    sandbox: Credentials | None = None,
    metrics_dir: Path | None = None,
) -> AsyncIterator[Service]:
    """Open everything that serving needs, in the order of birth; closed in reverse.

    The settings have a master key, and passed `check`. `sandbox`: credentials of the stand-in, when it is the upstream.
    `metrics_dir`: the folder in which several workers put their metrics together.
    """
    assert settings.master_key  # noqa: S101  # `launch` sees to it
    master_digest = digest(settings.master_key)
    metrics = Metrics()
    lines = logs.CallLog(enabled=settings.log_level in {"debug", "info"}, style=settings.log_format)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.callback(lines.flush)
        database = await enter(open_database(database_url))
        directory = await enter(
            key_directory(database, outage_seconds=settings.key_cache_seconds, sandbox=sandbox is not None)
        )
        identity = (
            FixedIdentity("sandbox", sandbox)
            if sandbox
            else await enter(Identity(region=settings.region, bearer=settings.bearer))
        )
        pool = await enter(plane.pool(settings))
        compose = plane.compose(settings, identity)
        resolver = await enter(profiles(compose, pool, time.monotonic))
        estimates, pricing = plane.prices(settings, resolver.known)
        name = CallIds()(time.time())
        allowances = await enter(_allowances(settings, database, name, estimates, metrics, resolver))
        ledger = await enter(_ledger(settings, database, name))
        handler = plane.handler(
            settings,
            master_digest=master_digest,
            record=Recorder(
                ledger, lines=lines, counters=metrics, price=pricing, clock=time.time, monotonic=time.monotonic
            ),
            directory=directory,
            profiles=resolver,
            limits=allowances,
            compose=compose,
            pool=pool,
            accepting=_accepting(ledger),
        )
        _watch(metrics, handler, directory, ledger)
        exposition = metrics.exposition
        if metrics_dir is not None:
            exposition = (await enter(merged_metrics(metrics_dir, exposition))).exposition
        reasons = (_draining(handler), ledger.problem, directory.problem, _unsigned(identity))
        probes = Probes(
            reasons=reasons, exposition=exposition, metrics_token=settings.metrics_token, content_type=CONTENT_TYPE
        )
        application = web.Application(client_max_size=settings.max_body_bytes)
        _add_routes(application, handler, probes, database, directory, master_digest)
        yield Service(application, handler, ledger, metrics.request_refused)


@asynccontextmanager
async def _allowances(
    settings: Settings, database: Database, holder: str, estimates: Estimates, metrics: Metrics, resolver: Profiles
) -> AsyncIterator[Allowances]:
    async with AsyncExitStack() as stack:
        send = None
        if settings.webhook_url:
            send = await stack.enter_async_context(webhook(settings.webhook_url, settings.webhook_secret or ""))
        choices = Choices(
            unpriced=settings.unpriced_under_budget,
            budgets=settings.budgets_without_database,
            rates=settings.rates_without_database,
        )
        opened = open_allowances(
            database.connect,
            holder,
            settings.data_dir,
            estimates=estimates,
            choices=choices,
            counters=metrics,
            send=send,
            stands_for=resolver.known,
        )
        yield await stack.enter_async_context(opened)


def _ledger(settings: Settings, database: Database, name: str) -> Ledger:
    return Ledger(
        settings.data_dir / "journal",
        database.connect,
        name=name,
        max_bytes=settings.journal_max_bytes,
        fsync_seconds=settings.journal_fsync_seconds,
    )


def _accepting(ledger: Ledger) -> Callable[[], None]:
    def accepting() -> None:
        if not ledger.writable():
            raise Unavailable(
                "The proxy cannot record calls at the moment, try again later.", cause=ledger.problem() or ""
            )

    return accepting


def _add_routes(
    application: web.Application,
    handler: Handler,
    probes: Probes,
    database: Database,
    directory: KeyDirectory,
    master_digest: str,
) -> None:
    application.on_response_prepare.append(_name_server)
    for prefix in PREFIXES:
        # the method, not the object: aiohttp takes an object for a function that is not async, and wraps it
        application.router.add_route("*", prefix + ANYTHING, handler.__call__)
    application.add_routes(probes.routes())
    add_admin_routes(
        application,
        database=database,
        authenticate=handler.authenticate,
        clock=time.time,
        obeyed=directory.caught_up,
        more=spend_endpoints(database, time.time),
        reserved={master_digest},
    )
    application.router.add_route("*", ANYTHING, _no_such_route)


def _watch(metrics: Metrics, handler: Handler, directory: KeyDirectory, ledger: Ledger) -> None:
    """Show what others count."""
    keys = directory.counts
    metrics.watch("counter", "passthrough_lost_log_lines", "Log lines nobody took.", lambda: STANDARD.lost)
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
    kept = "Calls brought to PostgreSQL by this process."
    metrics.watch("counter", "passthrough_ledger_stored_calls", kept, lambda: ledger.state().stored_calls)
    adopted = "Calls of dead processes, brought to PostgreSQL by this one."
    metrics.watch("counter", "passthrough_ledger_adopted_calls", adopted, lambda: ledger.state().adopted_calls)
    rejected = "Calls put aside because PostgreSQL refused their row."
    metrics.watch("counter", "passthrough_ledger_rejected_calls", rejected, lambda: ledger.state().rejected_calls)
    metrics.watch(
        "gauge", "passthrough_journal_bytes", "Journal not yet in PostgreSQL.", lambda: ledger.state().journal_bytes
    )
    damaged = "Bytes of the journal that belonged to no whole call; their files are kept."
    metrics.watch("counter", "passthrough_journal_damaged_bytes", damaged, lambda: ledger.state().damaged_bytes)
    stalled = "Workers that cannot bring calls to PostgreSQL at the moment; the log says why."
    metrics.watch(
        "gauge",
        "passthrough_ledger_stalled_workers",
        stalled,
        lambda: float(ledger.state().database_problem is not None),
    )


def _draining(handler: Handler) -> Reason:
    return lambda: "draining" if handler.draining else None


def _unsigned(identity: Signing) -> Reason:
    def reason() -> str | None:
        try:
            identity.current()
        except Unavailable:
            return None if identity.bearer else "no AWS credentials"
        return None

    return reason


async def _no_such_route(request: web.Request) -> web.Response:
    """What is neither a pass-through path nor one of ours."""
    message = f"There is nothing at {request.raw_path[:200]}: calls go to /bedrock/…, the admin API is at /docs."
    # in AWS's shape too: an SDK whose base URL lacks the prefix ends here, and should show the sentence
    return refuse(Refusal(404, "UnknownOperationException", message), uuid7(time.time()))


async def _name_server(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001  # the interface
    response.headers["Server"] = "passthrough"  # aiohttp would name itself and Python, with their versions
