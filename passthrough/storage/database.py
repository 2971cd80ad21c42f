"""The way to PostgreSQL: one engine a process, bare connections for listening, and what its loss means."""

import asyncio
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import asyncpg
import msgspec
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from passthrough.errors import Unavailable, UserError

_CONNECT_SECONDS: Final = 3.0
_COMMAND_SECONDS: Final = 30.0
_POOL_SIZE: Final = 5  # a worker's cache misses and ledger batches go one at a time; the rest is for administrators

_JSON: Final = msgspec.json.Encoder(decimal_format="number")  # jsonb keeps every digit

UNREACHABLE: Final = "The database cannot be reached at the moment: try again shortly."

# What PostgreSQL says while it starts, stops, fails over or has no room: nobody's mistake, it passes.
_PASSING: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg makes of a farewell that comes between two statements
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)


class Database:
    """The engine of one process. `dsn` is what `DATABASE_URL` says; asyncpg reads all of libpq's forms."""

    def __init__(self, dsn: str, engine: AsyncEngine) -> None:
        self._dsn = dsn
        self.engine = engine

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction; raises `Unavailable` when PostgreSQL is away."""
        with reachable():
            async with self.engine.begin() as connection:
                yield connection

    async def connect(self, *, bounded: bool = True) -> asyncpg.Connection:
        """Open a bare connection outside the pool, as `connect_to` does; the caller closes it."""
        return await connect_to(self._dsn, bounded=bounded)


@asynccontextmanager
async def open_database(url: str, *, pool_size: int = _POOL_SIZE) -> AsyncIterator[Database]:
    """Own an engine. Nothing is connected yet: a PostgreSQL that is away is found out by the first use."""
    dsn = checked_url(url)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_to(dsn),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=_CONNECT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text names the statement, never a value
        json_serializer=lambda value: _JSON.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    try:
        yield Database(dsn, engine)
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):  # a PostgreSQL that hangs must not hold up our end
                await engine.dispose()


@contextmanager
def reachable() -> Iterator[None]:
    """Turn the loss of PostgreSQL into `Unavailable`; every other error is a bug and stays one."""
    try:
        yield
    except (OSError, TimeoutError, PoolTimeoutError, OperationalError, InterfaceError, *_PASSING) as error:
        raise Unavailable(UNREACHABLE, cause=_cause(error)) from error
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig else None
        if error.connection_invalidated or isinstance(cause, _PASSING):
            raise Unavailable(UNREACHABLE, cause=_cause(error)) from error
        raise


def checked_url(url: str) -> str:
    """Bring `DATABASE_URL` into the form that asyncpg reads; raises `UserError` where it is no PostgreSQL's."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise UserError("DATABASE_URL is not the address of a PostgreSQL: write postgresql://user:password@host/name.")
    try:
        urllib.parse.urlsplit(f"postgresql://{rest}").port  # noqa: B018  # reading it is the check
    except ValueError:
        raise UserError(
            "DATABASE_URL has a malformed host or port: write postgresql://user:password@host:5432/name."
        ) from None
    return f"postgresql://{rest}"


async def connect_to(dsn: str, *, bounded: bool = True) -> asyncpg.Connection:
    """Open a connection; unless it is `bounded`, a statement on it may take any time."""
    async with asyncio.timeout(_CONNECT_SECONDS):
        return await asyncpg.connect(
            dsn,
            command_timeout=_COMMAND_SECONDS if bounded else None,
            server_settings={"application_name": "passthrough"},
        )


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
