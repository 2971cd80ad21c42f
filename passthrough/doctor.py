"""`passthrough doctor`: what would keep calls from being served, found before a user does."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from tempfile import TemporaryFile

import asyncpg

from passthrough import master_key, plane
from passthrough.app import check
from passthrough.bedrock.endpoints import is_region
from passthrough.errors import Refusal, Unavailable, UpstreamFailure, UserError
from passthrough.identities import Identity
from passthrough.proxy.headers import Forwarded
from passthrough.proxy.outgoing import EMPTY_SHA256, Payload
from passthrough.proxy.route import route
from passthrough.settings import Settings
from passthrough.storage.database import checked_url
from passthrough.storage.embedded import attached
from passthrough.storage.migrations import explained, require_head
from passthrough.wire.connection import Head
from passthrough.wire.fetch import fetch

LOOK_UP_SECONDS = 10.0
# AWS refuses signatures that are more than five minutes off; a minute is worth a word.
TOLERATED_SKEW_SECONDS = 60.0
_MOST_ANSWER_BYTES = 1024 * 1024  # one invocation of a list, or an error: a few KB
_LONGEST_MESSAGE = 200  # characters; AWS's sentences about credentials have fewer
_NOT_ALLOWED = "is not authorized to perform"  # IAM's words, of somebody whom it knows


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
        ("AWS", _aws),
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
    except TimeoutError as error:
        return Finding(subject, str(error) or "there was no answer in time", ok=False)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
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


async def _aws(settings: Settings) -> str:
    """Send one call as calls are sent, to where they are sent: one that reads, and runs and costs nothing."""
    call = route("GET", "/bedrock/async-invoke?maxResults=1")
    payload = Payload(b"", 0, EMPTY_SHA256, hash_is_the_clients=False)
    async with (
        asyncio.timeout(LOOK_UP_SECONDS),
        Identity(region=settings.region, bearer=settings.bearer) as identity,
        plane.pool(settings) as pool,
    ):
        if not identity.bearer:
            await identity.describe()  # the first look-up has ended then
        try:
            asked = plane.compose(settings, identity)("GET", call, settings.region, Forwarded(b"", []), payload)
        except Unavailable:
            raise UserError("it was not asked, there is nothing to sign with") from None
        try:
            head, body = await fetch(pool, asked.address, asked.head, most_bytes=_MOST_ANSWER_BYTES)
        except UpstreamFailure as failure:
            raise UserError(f"it could not be asked whether it takes the credentials: {failure}") from None
    return _verdict(head, body, bearer=identity.bearer is not None)


def _verdict(head: Head, body: bytes, *, bearer: bool) -> str:
    what = "AWS_BEARER_TOKEN_BEDROCK" if bearer else "the credentials"
    kinds = (value for name, value in head.headers if name.lower() == b"x-amzn-errortype")
    code = next(kinds, b"").decode("ascii", "replace").partition(":")[0]
    said = _message(body)
    # Whoever may not list invocations is known by then. Of an API key that it does not know AWS says AccessDenied too.
    knows = head.status == HTTPStatus.OK or (code == "AccessDeniedException" and (not bearer or _NOT_ALLOWED in said))
    if knows:
        return f"it takes {what}"
    if head.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise UserError(f"it does not take {what}: {code or head.status} ({said}).")
    return f"it answered {head.status} {code}, which says nothing of {what}"


def _message(body: bytes) -> str:
    """What AWS says, without the canonical request that it appends to a wrong signature: a session token is in it."""
    try:
        document = json.loads(body)
        said = str(document.get("message") or document.get("Message") or "")
    except (ValueError, AttributeError):
        said = ""
    return said.partition("\n")[0][:_LONGEST_MESSAGE].rstrip(". ") or "without a word"


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
