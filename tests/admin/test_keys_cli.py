"""`passthrough key …`: what a shell does, HTTP shows, and the other way round."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from passthrough import keys_cli
from passthrough.errors import UserError
from passthrough.policy.keys import digest
from passthrough.storage.database import open_database
from passthrough.storage.schema import Audit, Key


class Shell:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(keys_cli.app, arguments, env=self._environment, standalone_mode=False)
        if result.exception:
            raise result.exception
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture
def shell(database_url: str) -> Shell:
    return Shell({"DATABASE_URL": database_url, "COLUMNS": "200"})


def test_a_key_is_made_listed_shown_changed_rotated_and_deleted(shell: Shell) -> None:
    made = shell.run("create", "--alias", "ci", "--model", "anthropic.*", "--model", "amazon.*", "--duration", "30d")
    key = made.stdout.strip()
    assert key.startswith("sk-")
    assert made.stderr == "Keep it: it is not shown again.\n"

    listed = shell.run("list").stdout
    assert "ci" in listed
    assert "anthropic.*, amazon.*" in listed
    assert "1 of 1 keys" in listed
    assert shell.json("list", "--search", "c", "--status", "active")["total_count"] == 1

    for reference in (key, digest(key), "ci"):
        shown = shell.json("info", reference)
        assert (shown["token"], shown["models"]) == (digest(key), ["anthropic.*", "amazon.*"])
    assert key not in shell.run("info", "ci").stdout

    changed = shell.json("update", "ci", "--max-budget", "1.25", "--fields", '{"rpm_limit": 60, "models": null}')
    assert (changed["max_budget"], changed["rpm_limit"], changed["models"]) == (1.25, 60, [])
    assert shell.json("update", "ci", "--duration", "never", "--alias", "cd")["expires"] is None

    assert shell.json("block", "cd")["status"] == "revoked"
    assert shell.json("unblock", "cd")["status"] == "active"
    rotated = shell.json("rotate", "cd", "--grace", "1h")
    assert rotated["token"] == digest(rotated["key"]) != digest(key)
    assert shell.json("info", key)["token"] == rotated["token"]

    assert shell.run("delete", "cd").stdout == "Keys deleted: 1.\n"
    assert "0 of 0 keys" in shell.run("list").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("info", "nobody"), "There is no such key: name an existing one by itself or its SHA-256 or its alias."),
        (("delete", "sk-nobodys-key-at-all"), "There is no such key"),
        (("create", "--duration", "soon"), "The field 'duration' does not fit"),
        (("create", "--max-budget", "-1"), "The field 'max_budget' does not fit"),
        (("create", "--fields", '{"nope": 1}'), "There is no field 'nope'"),
        (("create", "--fields", "nope"), "--fields is not a JSON object"),
        (("create", "--fields", "[]"), "--fields is not a JSON object"),
        (("rotate", "nobody", "--grace", "x"), "There is no such key"),
    ],
)
def test_a_mistake_is_one_sentence(shell: Shell, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as mistake:
        shell.run(*arguments)
    assert sentence in str(mistake.value)


def test_the_audit_says_which_shell_it_was(shell: Shell, database_url: str) -> None:
    shell.run("create")

    async def read() -> list[tuple[str, str | None]]:
        async with open_database(database_url) as database, database.begin() as connection:
            rows = await connection.execute(select(Audit.changed_by, Audit.client_ip))
            keys = await connection.execute(select(Key.created_by))
            return [tuple(row) for row in (*rows, *((name, None) for name in keys.scalars()))]

    rows = asyncio.run(read())
    assert len(rows) == 2
    assert all(name.startswith("shell:") and address is None for name, address in rows)


def test_no_key_is_made_of_the_master_key(database_url: str) -> None:
    shell = Shell({"DATABASE_URL": database_url, "PASSTHROUGH_MASTER_KEY": "sk-the-administrators-own"})
    with pytest.raises(UserError, match="master key") as caught:
        shell.run("create", "--fields", '{"key": "sk-the-administrators-own"}')
    assert "administrators-own" not in str(caught.value)
    shell.run("create", "--fields", '{"key": "sk-the-administrators-own2"}')
