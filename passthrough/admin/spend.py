"""The ledger's routes in the admin API: calls, counters, reports, activity."""

from collections.abc import Callable

from passthrough.admin.endpoint import Endpoint
from passthrough.admin.spend_activity import ActivityRoutes
from passthrough.admin.spend_calls import CallRoutes
from passthrough.admin.spend_counters import CounterRoutes
from passthrough.admin.spend_reports import ReportRoutes
from passthrough.storage.database import Database


def spend_endpoints(database: Database, clock: Callable[[], float]) -> list[Endpoint]:
    """Return what `add_admin_routes` takes as `more`; `clock` gives seconds since 1970."""
    nouns = (CallRoutes, CounterRoutes, ReportRoutes, ActivityRoutes)
    return [endpoint for noun in nouns for endpoint in noun(database, clock).endpoints()]
