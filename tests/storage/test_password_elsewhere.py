"""A password that no URL holds: in `PGPASSWORD`, as libpq has it, for every way in which the database is opened."""

import asyncio
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.fakes.running import MASTER_KEY, command

PASSWORD = "p@ss/w%rd:#?[ü]"  # each of these means something in a URL
WRONG = "none-of-yours"
REFUSED = (
    'The database refuses us (password authentication failed for user "keeper"): '
    "check user, password and name in DATABASE_URL."
)
PATIENCE_SECONDS = 10.0


@pytest.fixture
def guarded(postgres: str, _template: str) -> Iterator[str]:
    """Address of a database at head that asks for the password; the address has none."""
    path = Path(asyncio.run(_prepare(postgres, _template)))
    rules = path.read_text()
    path.write_text(f"local guarded keeper scram-sha-256\n{rules}")
    url = postgres.replace("postgres@/postgres?", "keeper@/guarded?")
    try:
        asyncio.run(_reloaded(postgres, url))
        yield url
    finally:
        path.write_text(rules)
        asyncio.run(_clear(postgres))


async def _prepare(postgres: str, template: str) -> str:
    connection = await asyncpg.connect(postgres)
    try:
        quoted = await connection.fetchval("SELECT quote_literal($1)", PASSWORD)
        await connection.execute(f"CREATE ROLE keeper SUPERUSER LOGIN PASSWORD {quoted}")
        await connection.execute(f"CREATE DATABASE guarded TEMPLATE {template} OWNER keeper")
        return await connection.fetchval("SHOW hba_file")
    finally:
        await connection.close()


async def _reloaded(postgres: str, url: str) -> None:
    """Return once PostgreSQL asks for the password."""
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await (await asyncpg.connect(url, password="wrong")).close()
            except asyncpg.InvalidPasswordError:
                return
            await asyncio.sleep(0.02)


async def _clear(postgres: str) -> None:
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("DROP DATABASE IF EXISTS guarded WITH (FORCE)")
        await connection.execute("DROP ROLE IF EXISTS keeper")
    finally:
        await connection.close()


def run(url: str, data_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    known = {"DATABASE_URL": url, "PASSTHROUGH_DATA_DIR": str(data_dir), "AWS_EC2_METADATA_DISABLED": "true"}
    return subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", "passthrough", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(data_dir), **known, **environ},
    )


def test_a_password_in_pgpassword_opens_the_database_for_every_command(guarded: str, tmp_path: Path) -> None:
    refused = run(guarded, tmp_path, "migrate", PGPASSWORD="another")
    assert refused.returncode == 1
    assert "password authentication failed" in refused.stderr

    migrated = run(guarded, tmp_path, "migrate", PGPASSWORD=PASSWORD)
    assert migrated.returncode == 0, migrated.stderr
    found = run(guarded, tmp_path, "doctor", PGPASSWORD=PASSWORD).stdout
    assert "schema at head" in next(line for line in found.splitlines() if "database:" in line)
    made = run(guarded, tmp_path, "key", "create", "--json", PGPASSWORD=PASSWORD)
    assert json.loads(made.stdout)["key"].startswith("sk-"), made.stderr
    spent = run(guarded, tmp_path, "spend", PGPASSWORD=PASSWORD)
    assert spent.returncode == 0, spent.stderr


@pytest.mark.parametrize(
    "arguments", ["migrate", "serve", "serve --migrate", "key create", "spend", "ledger prune --older-than 90d"]
)
def test_a_wrong_password_is_one_sentence_that_does_not_name_it(guarded: str, tmp_path: Path, arguments: str) -> None:
    refused = run(guarded, tmp_path, *arguments.split(), PGPASSWORD=WRONG, PASSTHROUGH_MASTER_KEY=MASTER_KEY)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1:] == [f"passthrough: {REFUSED}"]
    assert "Traceback" not in refused.stderr
    assert WRONG not in refused.stderr


def test_the_doctor_finds_a_wrong_password(guarded: str, tmp_path: Path) -> None:
    refused = run(guarded, tmp_path, "doctor", PGPASSWORD=WRONG)
    [line] = [line for line in refused.stdout.splitlines() if "database:" in line]
    assert (refused.returncode, line) == (1, f"FAIL  database: {REFUSED}")
    assert WRONG not in refused.stdout + refused.stderr


def test_a_password_in_pgpassword_opens_the_database_for_every_worker(guarded: str, tmp_path: Path) -> None:
    with command(tmp_path, "--migrate", "--workers", "2", DATABASE_URL=guarded, PGPASSWORD=PASSWORD) as served:
        connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        connection.request("GET", "/key/list", headers={"Authorization": f"Bearer {MASTER_KEY}"})
        assert connection.getresponse().status == 200
        connection.close()
    assert served.ended() == 0
    assert PASSWORD not in json.dumps(served.lines, ensure_ascii=False)
