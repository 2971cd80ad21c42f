"""Keys from a shell: the same requests as over HTTP, checked by the same types, straight against the database."""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from passthrough import master_key
from passthrough.admin.key_answers import key_answer, key_row
from passthrough.admin.key_rotation import Rotation
from passthrough.admin.key_tables import key_table, keys_table
from passthrough.admin.keys import Keys, Made, unknown_key
from passthrough.admin.reading import decoded
from passthrough.admin.schemas.keys import GeneratedKey, GenerateKey, KeyRow, RegenerateKey, UpdateKey
from passthrough.errors import Refusal, Unavailable, UserError
from passthrough.policy.keys import KEY_PREFIX, digest, is_digest
from passthrough.settings import Settings, load
from passthrough.storage.audit import Actor
from passthrough.storage.database import open_database
from passthrough.storage.embedded import attached
from passthrough.storage.key_pages import Filter, Page
from passthrough.storage.migrations import require_head

app = typer.Typer(help="Make, show, change and delete virtual keys.")

Config = Annotated[Path | None, typer.Option(help="A TOML file with settings; the environment comes first.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Reference = Annotated[str, typer.Argument(metavar="KEY", help="The key itself, its SHA-256, or its alias.")]
References = Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys, their SHA-256s, or their aliases.")]
Alias = Annotated[str | None, typer.Option(help="A unique name.")]
Owner = Annotated[str | None, typer.Option(help="Id of the user who owns it; created if there is none.")]
TeamId = Annotated[str | None, typer.Option(help="Id of its team; created if there is none.")]
Models = Annotated[list[str] | None, typer.Option(help="A model id, ARN or pattern; repeatable; none is all.")]
Tags = Annotated[list[str] | None, typer.Option(help="A tag for reports; repeatable.")]
Duration = Annotated[str | None, typer.Option(help="How long it lasts from now: 12h, 30d, 1mo; never: for ever.")]
Budget = Annotated[float | None, typer.Option(help="USD per window, or in all.")]
Window = Annotated[str | None, typer.Option(help="The budget's window: 1d, 7d, 1mo.")]
Fields = Annotated[str, typer.Option(help='Other fields of the API, as JSON: \'{"rpm_limit": 60, "tags": null}\'.')]
Result = TypeVar("Result")
Work = Callable[[Keys, Rotation], Awaitable[Result]]

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Status(StrEnum):
    """The states of a key."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@app.command()
def create(
    alias: Alias = None,
    user: Owner = None,
    team: TeamId = None,
    model: Models = None,
    tag: Tags = None,
    duration: Duration = None,
    max_budget: Budget = None,
    budget_duration: Window = None,
    fields: Fields = "{}",
    json: Json = False,  # noqa: FBT002  # typer's way
    config: Config = None,
) -> None:
    """Make a key; this is the only time that it is shown."""
    given = _given(alias, user, team, model, tag, duration, max_budget, budget_duration)

    async def make(keys: Keys, _: Rotation) -> Made:
        return await keys.generate(_request(GenerateKey, given, fields), _actor())

    _print_made(_run(config, make), json=json)


@app.command(name="list")
def list_keys(
    user: Owner = None,
    team: TeamId = None,
    search: Annotated[str | None, typer.Option(help="A piece of the alias.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only keys in this state.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
    size: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Json = False,  # noqa: FBT002  # typer's way
    config: Config = None,
) -> None:
    """List keys, the newest first."""
    which = Filter(
        user_id=user,
        team_id=team,
        pieces=(search,) if search else (),
        status=status.value if status else None,
    )

    async def read(keys: Keys, _: Rotation) -> tuple[list[KeyRow], int]:
        rows, total = await keys.page(which, Page(number=page, size=size))
        return [key_row(row, keys.now()) for row in rows], total

    rows, total = _run(config, read)
    if json:
        typer.echo(_encode({"keys": rows, "total_count": total}).decode())
    else:
        _print(keys_table(rows))
        typer.echo(f"{len(rows)} of {total} keys")


@app.command()
def info(key: Reference, json: Json = False, config: Config = None) -> None:  # noqa: FBT002  # typer's way
    """Show a key."""

    async def read(keys: Keys, _: Rotation) -> KeyRow:
        rows = await keys.info([await _id(keys, key)])
        if not rows:
            raise unknown_key()
        return key_row(rows[0], keys.now())

    _print_key(_run(config, read), json=json)


@app.command()
def update(
    key: Reference,
    alias: Alias = None,
    user: Owner = None,
    team: TeamId = None,
    model: Models = None,
    tag: Tags = None,
    duration: Duration = None,
    max_budget: Budget = None,
    budget_duration: Window = None,
    fields: Fields = "{}",
    json: Json = False,  # noqa: FBT002  # typer's way
    config: Config = None,
) -> None:
    """Change what is given of a key, at once on every worker."""
    given = _given(alias, user, team, model, tag, duration, max_budget, budget_duration)

    async def change(keys: Keys, _: Rotation) -> KeyRow:
        request = _request(UpdateKey, {**given, "key": await _id(keys, key)}, fields)
        return key_row(await keys.update(request, _actor()), keys.now())

    _print_key(_run(config, change), json=json)


@app.command()
def block(key: Reference, json: Json = False, config: Config = None) -> None:  # noqa: FBT002  # typer's way
    """Block a key, at once on every worker."""
    _set_blocked(key, blocked=True, json=json, config=config)


@app.command()
def unblock(key: Reference, json: Json = False, config: Config = None) -> None:  # noqa: FBT002  # typer's way
    """Let a blocked key be used again."""
    _set_blocked(key, blocked=False, json=json, config=config)


@app.command()
def rotate(
    key: Reference,
    grace: Annotated[str | None, typer.Option(help="How long the former text still works: 24h.")] = None,
    json: Json = False,  # noqa: FBT002  # typer's way
    config: Config = None,
) -> None:
    """Replace a key's text; this is the only time that the new one is shown."""
    given = {"grace_period": grace} if grace else {}

    async def replace(keys: Keys, rotation: Rotation) -> Made:
        return await rotation.rotate(await _id(keys, key), _request(RegenerateKey, given, "{}"), _actor())

    _print_made(_run(config, replace), json=json)


@app.command()
def delete(key: References, json: Json = False, config: Config = None) -> None:  # noqa: FBT002  # typer's way
    """Delete keys, all or none, at once on every worker."""

    async def remove(keys: Keys, _: Rotation) -> None:
        await keys.delete([await _id(keys, reference) for reference in key], [], _actor())

    _run(config, remove)
    typer.echo(_encode({"deleted": len(key)}).decode() if json else f"Keys deleted: {len(key)}.")


def _set_blocked(key: str, *, blocked: bool, json: bool, config: Path | None) -> None:
    async def change(keys: Keys, _: Rotation) -> KeyRow:
        return key_row(await keys.block(await _id(keys, key), _actor(), blocked=blocked), keys.now())

    _print_key(_run(config, change), json=json)


def _run(config: Path | None, work: Work[Result]) -> Result:
    settings = load(config=config)
    master = settings.master_key or (None if settings.database_url else master_key.kept(settings.data_dir))

    async def main(url: str) -> Result:
        await require_head(url)
        async with open_database(url) as database:
            reserved = {digest(master)} if master else ()
            keys = Keys(database, lambda: datetime.now(UTC).timestamp(), reserved=reserved)
            return await work(keys, Rotation(database, keys))

    with _database_url(settings) as url:
        try:
            return asyncio.run(main(url))
        except Unavailable:
            raise
        except Refusal as refusal:
            raise UserError(refusal.message) from None


@contextmanager
def _database_url(settings: Settings) -> Iterator[str]:
    if settings.database_url:
        yield settings.database_url
    else:
        with attached(settings.data_dir) as url:
            yield url


def _given(
    alias: str | None,
    user: str | None,
    team: str | None,
    models: list[str] | None,
    tags: list[str] | None,
    duration: str | None,
    max_budget: float | None,
    budget_duration: str | None,
) -> dict[str, Any]:
    named = {
        "key_alias": alias,
        "user_id": user,
        "team_id": team,
        "models": models or None,
        "tags": tags or None,
        "duration": "-1" if duration == "never" else duration,
        "max_budget": max_budget,
        "budget_duration": budget_duration,
    }
    return {name: value for name, value in named.items() if value is not None}


def _request(kind: Any, given: Mapping[str, Any], fields: str) -> Any:  # of the kind that is asked for
    try:
        more = msgspec.json.decode(fields, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError):
        raise UserError("--fields is not a JSON object: write '{\"rpm_limit\": 60}'.") from None
    return decoded(_encode({**more, **given}), kind)


async def _id(keys: Keys, reference: str) -> str:
    """A key, its SHA-256, or its alias."""
    if reference.startswith(KEY_PREFIX) or is_digest(reference):
        return reference
    rows, _ = await keys.page(Filter(alias=reference), Page(number=1, size=1))
    if not rows:
        raise unknown_key("its alias")
    return str(rows[0]["key_id"])


def _actor() -> Actor:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        name = str(os.getuid())
    return Actor(f"shell:{name}")


def _print_made(made: Made, *, json: bool) -> None:
    row = made.row
    answer = key_answer(row, datetime.now(UTC), GeneratedKey, key=made.key, token_id=row["key_id"])
    if json:
        typer.echo(_encode(answer).decode())
        return
    typer.echo(made.key)
    typer.echo("Keep it: it is not shown again.", err=True)


def _print_key(row: KeyRow, *, json: bool) -> None:
    if json:
        typer.echo(_encode(row).decode())
        return
    _print(key_table(row))


def _print(table: Table) -> None:
    Console(markup=False, highlight=False).print(table)  # a name in [brackets] is a name
