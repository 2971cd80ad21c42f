"""The same scripted upstream and the same proxy as the journeys."""

from tests.journeys.conftest import (
    database_url,
    proxy,
    pytest_asyncio_loop_factories,
    shared_database,
    start,
    upstream,
)

__all__ = ["database_url", "proxy", "pytest_asyncio_loop_factories", "shared_database", "start", "upstream"]
