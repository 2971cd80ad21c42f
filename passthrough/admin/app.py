"""The admin API in the application: its routes stand at the root, beside the pass-through's prefixes."""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

import msgspec
from aiohttp import web

from passthrough.admin import docs
from passthrough.admin.audit import AuditRoutes
from passthrough.admin.budgets import BudgetRoutes, Budgets
from passthrough.admin.bulk_routes import BulkRoutes
from passthrough.admin.customers import CustomerRoutes, Customers
from passthrough.admin.endpoint import Asked, Authenticate, Endpoint, Server
from passthrough.admin.key_rotation import Rotation
from passthrough.admin.key_rotation_routes import KeyRotationRoutes
from passthrough.admin.key_routes import KeyRoutes
from passthrough.admin.keys import Keys
from passthrough.admin.member_routes import MemberRoutes
from passthrough.admin.openapi import document
from passthrough.admin.team_routes import TeamRoutes
from passthrough.admin.teams import Teams
from passthrough.admin.user_routes import UserRoutes
from passthrough.admin.users import Users
from passthrough.storage.database import Database

_log = logging.getLogger(__name__)


def add_admin_routes(
    app: web.Application,
    *,
    database: Database,
    authenticate: Authenticate,
    clock: Callable[[], float],
    obeyed: Callable[[], Awaitable[None]],
    more: Iterable[Endpoint] = (),
    reserved: Collection[str] = (),
) -> None:
    """Serve the admin API. `clock` gives seconds since 1970; `more` are endpoints of other nouns (spend).

    `reserved` are digests that no virtual key may have: the master key's. `obeyed` returns once this process obeys
    what was changed: whoever has our answer may count on that.
    """
    endpoints = [*admin_endpoints(database, clock, reserved), *more]
    described = document(endpoints)
    shown, written = docs.page(described), msgspec.json.encode(described)

    async def openapi(asked: Asked) -> web.Response:  # noqa: ARG001  # the interface of a handler
        return web.Response(body=written, content_type="application/json")

    async def show(asked: Asked) -> web.Response:  # noqa: ARG001  # as above
        return web.Response(body=shown, headers=docs.HEADERS)

    endpoints += [
        Endpoint(method="GET", path="/openapi.json", handle=openapi, summary="This document.", access="anyone"),
        Endpoint(method="GET", path="/docs", handle=show, summary="This document for people.", access="anyone"),
    ]
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    for path, same in by_path.items():
        server = Server(path, same, authenticate=authenticate, clock=clock, obeyed=obeyed, failed=_failed)
        app.router.add_route("*", path, server.serve)


def admin_endpoints(database: Database, clock: Callable[[], float], reserved: Collection[str] = ()) -> list[Endpoint]:
    """Every route about keys, their owners, budgets, and changes."""
    keys = Keys(database, clock, reserved=reserved)
    users = Users(database, keys)
    teams = Teams(database, clock)
    nouns = (
        KeyRoutes(keys),
        KeyRotationRoutes(keys, Rotation(database, keys)),
        UserRoutes(users, teams, clock),
        TeamRoutes(teams, clock),
        MemberRoutes(teams),
        BulkRoutes(keys, users, teams),
        CustomerRoutes(Customers(database, clock)),
        BudgetRoutes(Budgets(database, clock)),
        AuditRoutes(database),
    )
    return [endpoint for noun in nouns for endpoint in noun.endpoints()]


def _failed(path: str, error: Exception) -> None:
    _log.error("an admin call failed for a reason of ours", extra={"path": path}, exc_info=error)
