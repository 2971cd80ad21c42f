"""Bring a database to this version's schema, or refuse one that is behind.

Alembic takes 11 MB for as long as a process lives, so `ladder` is imported by whoever needs it, when it does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from passthrough.errors import Unavailable, UserError
from passthrough.storage.database import checked_url, connect_to, reachable

_MIGRATION_LOCK: Final = 7_096_112_001  # any number that nobody else takes in this database
_LOCK_TIMEOUT: Final = "4s"  # a migration that waits longer for a table would hold up the calls behind it


async def migrate(url: str) -> None:
    """Bring the database to head. Many replicas may do so at once: one works, the others wait and find it done."""
    from passthrough.storage import ladder  # noqa: PLC0415  # see above

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect_to(checked_url(url)), poolclass=NullPool
    )
    with _explained():
        async with engine.connect() as connection:
            # Of the session, not the transaction: each migration commits its own.
            await connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _MIGRATION_LOCK})
            await connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
            await connection.commit()
            await connection.run_sync(ladder.upgrade)
            await connection.commit()
    await engine.dispose()


async def require_head(url: str) -> None:
    """Raise `UserError` when the schema is behind this version; one that is ahead is a rolling upgrade's."""
    from passthrough.storage import ladder  # noqa: PLC0415  # see above

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect_to(checked_url(url)), poolclass=NullPool
    )
    with _explained():
        async with engine.connect() as connection:
            current = await connection.run_sync(ladder.current_revision)
    await engine.dispose()
    head = ladder.head_revision()
    if current is None:
        raise UserError("The database has no tables of passthrough yet: run 'passthrough migrate' first.")
    if current != head and current in ladder.revisions():
        raise UserError(
            f"The database is at revision {current} and must be at {head}: run 'passthrough migrate' first."
        )


@contextmanager
def _explained() -> Iterator[None]:
    """For the command line: an unreachable database is the user's to mend, in one sentence."""
    try:
        with reachable():
            yield
    except Unavailable as error:
        raise UserError(
            f"The database cannot be reached ({error.cause}): check DATABASE_URL and that it runs."
        ) from error
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise UserError(f"The database refuses us ({error}): check user, password and name in DATABASE_URL.") from error
