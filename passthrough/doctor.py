"""`passthrough doctor`: what would keep calls from being served, found before a user does."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from tempfile import TemporaryFile

import asyncpg

from passthrough import master_key, plane
from passthrough.app import check
from passthrough.bedrock.endpoints import is_region
from passthrough.errors import Refusal, Unavailable, UserError
from passthrough.identities import Identity
from passthrough.settings import Settings
from passthrough.storage.database import checked_url
from passthrough.storage.embedded import attached
from passthrough.storage.migrations import explained, require_head

LOOK_UP_SECONDS = 10.0
# AWS refuses signatures that are more than five minutes off; a minute is worth a word.
TOLERATED_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    text: str
    ok: bool = True


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything, whatever the outcome of each."""
    checks: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
        ("credentials", _credentials),
        ("settings", _settings),
        ("region", _region),
        ("upstream", _upstream),
        ("master key", _master_key),
        ("database", _database),
        ("data directory", _data_directory),
    ]
    return [await _finding(subject, check, settings) for subject, check in checks]


async def _finding(subject: str, check: Callable[[Settings], Awaitable[str]], settings: Settings) -> Finding:
    try:
        return Finding(subject, await check(settings))
    except Unavailable as error:
        return Finding(subject, error.cause, ok=False)
    except (UserError, Refusal) as error:
        return Finding(subject, str(error), ok=False)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Finding(subject, f"{type(error).__name__}: {error}", ok=False)


async def _credentials(settings: Settings) -> str:
    async with Identity(region=settings.region, bearer=settings.bearer) as identity:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            description = await identity.describe()
        if description.source is None and not settings.bearer:
            raise UserError(description.trouble or "no AWS credentials were found")
        parts = [f"from {description.source}, access key {description.access_key}"] if description.source else []
        if description.expires_at is not None:
            parts.append(f"valid for {(description.expires_at - time.time()) / 60:.0f} more minutes")
        if settings.bearer:
            parts.append("AWS_BEARER_TOKEN_BEDROCK is used where AWS accepts it")
        if settings.bearer and description.source is None:
            parts.append("bedrock-agent-runtime takes no bearer token and cannot be served")
        return "; ".join(parts)


async def _settings(settings: Settings) -> str:
    check(settings)
    return "can be served with"


async def _region(settings: Settings) -> str:
    if settings.region_is_a_guess:
        raise UserError(f"none is set, {settings.region} would be used; set AWS_REGION.")
    if not is_region(settings.region):
        raise UserError(f"{settings.region} is no region that AWS's partitions list; correct AWS_REGION.")
    return settings.region


async def _upstream(settings: Settings) -> str:
    endpoint = plane.endpoints(settings).of("bedrock-runtime", settings.region)
    async with asyncio.timeout(settings.connect_seconds):
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.close()
    return f"{endpoint.host}:{endpoint.port} can be reached"


async def _master_key(settings: Settings) -> str:
    if settings.master_key:
        if weakness := master_key.weakness(settings.master_key):
            raise UserError(weakness)
        return "set"
    if settings.database_url:
        raise UserError("PASSTHROUGH_MASTER_KEY is not set; set it to a long random text.")
    return f"kept in {settings.data_dir}"


async def _database(settings: Settings) -> str:
    if settings.database_url:
        with explained():
            found = await _look_at(checked_url(settings.database_url))
        await require_head(settings.database_url)
        return f"{found}, schema at head"
    with attached(settings.data_dir) as url:
        return f"embedded {await _look_at(url)}; passthrough serve brings its schema to head"


async def _look_at(url: str) -> str:
    async with asyncio.timeout(LOOK_UP_SECONDS):
        connection = await asyncpg.connect(url)
        try:
            version = await connection.fetchval("SHOW server_version")
            skew = abs(time.time() - await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        finally:
            await connection.close()
    if skew > TOLERATED_SKEW_SECONDS:
        raise UserError(f"its clock and this machine's differ by {skew:.0f} s; AWS refuses signatures 300 s off.")
    return f"PostgreSQL {version}, clocks {skew:.1f} s apart"


async def _data_directory(settings: Settings) -> str:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryFile(dir=settings.data_dir) as file:
        file.write(b"writable")
        os.fsync(file.fileno())
    return f"{settings.data_dir} takes writes"
