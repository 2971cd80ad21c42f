"""Bring a database to this version's schema, or refuse one that is behind.

Alembic takes 11 MB for as long as a process lives, so `ladder` is imported by whoever needs it, when it does.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from passthrough.errors import Unavailable, UserError
from passthrough.storage.database import checked_url, connect_to, reachable

_log = logging.getLogger(__name__)

_MIGRATION_LOCK: Final = 7_096_112_001  # any number that nobody else takes in this database
_TURN_SECONDS: Final = 0.5  # between two looks whether another replica has done migrating
# A migration that waits longer for a table would hold up the calls behind it. What it does once it has its tables may
# take any time, also where the role has a bound.
_SESSION: Final = ("SET lock_timeout = '4s'", "SET statement_timeout = 0")
_PAUSE_SECONDS: Final = 4.0  # in which those calls go on, before it waits for the table again
_ATTEMPTS: Final = 10  # with the pauses 76 s: a statement of a server has 30
# What PostgreSQL says to whom it does not let in. SQLAlchemy wraps it.
_REFUSALS: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # user or password
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)


async def migrate(url: str) -> None:
    """Bring the database to head. Many replicas may do so at once: one works, the others wait and find it done.

    A migration takes as long as its tables are large. Only its waits for a table are short, and repeated: everybody
    who comes after it for that table waits behind it. Raises `UserError` when it cannot have one.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_to(checked_url(url), bounded=False),
        poolclass=NullPool,
    )
    with explained():
        async with engine.connect() as connection:
            await _take_turn(connection)
            for statement in _SESSION:
                await connection.execute(text(statement))
            await connection.commit()
            await _climb(connection)
    await engine.dispose()


async def _take_turn(connection: AsyncConnection) -> None:
    """Wait until no other replica migrates, outside a transaction: a migration may have to wait for all that are open.

    The lock is the session's, because each migration commits its own transaction.
    """
    told = False
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:id)"), {"id": _MIGRATION_LOCK}):
        await connection.commit()
        if not told:
            _log.info("another replica migrates the database, waiting for it")
            told = True
        await asyncio.sleep(_TURN_SECONDS)


async def _climb(connection: AsyncConnection) -> None:
    from passthrough.storage import ladder  # noqa: PLC0415  # see above

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await connection.run_sync(ladder.upgrade)
            await connection.commit()
        except DBAPIError as error:
            if not isinstance(error.orig and error.orig.__cause__, asyncpg.LockNotAvailableError):
                raise
            await connection.rollback()  # of the one migration that waited; those before it stay
            if attempt == _ATTEMPTS:
                raise UserError(
                    "The migration cannot have a table that others keep in use: end long transactions "
                    "(see pg_stat_activity), then run 'passthrough migrate' again."
                ) from error
            _log.warning("a table is in use, the migration tries again", extra={"attempt": attempt})
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def require_head(url: str) -> None:
    """Raise `UserError` when the schema is behind this version; one that is ahead is a rolling upgrade's."""
    from passthrough.storage import ladder  # noqa: PLC0415  # see above

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect_to(checked_url(url)), poolclass=NullPool
    )
    with explained():
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
def explained() -> Iterator[None]:
    """For the command line: an unreachable database is the user's to mend, in one sentence."""
    try:
        with reachable():
            yield
    except Unavailable as error:
        raise UserError(
            f"The database cannot be reached ({error.cause}): check DATABASE_URL and that it runs."
        ) from error
    except (*_REFUSALS, DBAPIError) as error:
        cause = error.orig and error.orig.__cause__ if isinstance(error, DBAPIError) else error
        if not isinstance(cause, _REFUSALS):
            raise
        said = str(cause).partition("\n")[0]
        raise UserError(f"The database refuses us ({said}): check user, password and name in DATABASE_URL.") from error
