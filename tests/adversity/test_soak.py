"""A bounded soak: whatever dies, every call that a client has in hand is one row, and the books agree.

`SOAK_SECONDS` (10) is how long disasters go on; each happens at least once. `SOAK_SEED` repeats what was drawn.
"""

import asyncio
import json
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from passthrough.policy.keys import digest
from passthrough.sandbox import Received, Sandbox
from passthrough.storage.migrations import migrate
from tests.adversity.program import Postgres, Program, events, secrets_in
from tests.adversity.soak_books import Row, assert_sums_agree, rows_of, texts_with
from tests.adversity.soak_calls import Caller
from tests.adversity.soak_world import Notes, World
from tests.fakes.running import MASTER_KEY
from tests.fakes.speak import ask

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))  # noqa: S311  # no secret
CLIENTS = 32
SHIPPED_SECONDS = 30.0  # far more than adoption (5 s) and the longest pause (5 s) take
WORD = "plumbago"  # in every prompt, and nowhere else

# Who owns the keys: user, team, tags.
OWNERS = (
    ("una", "red", ["batch"]),
    ("una", None, []),
    ("dos", "red", []),
    ("dos", "blue", ["batch", "alpha"]),
    (None, "blue", []),
    (None, None, []),
)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="passthrough-") as folder, ExitStack() as stack:
        server = Postgres(Path(folder))
        server.start()
        stack.callback(server.stop)
        yield server


async def test_every_call_that_a_client_completed_is_one_row_and_the_books_agree_whatever_dies(
    tmp_path: Path, own_postgres: Postgres
) -> None:
    print(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g}")  # noqa: T201  # how to repeat it
    secrets, leaks = [MASTER_KEY], []

    def look(received: Received) -> None:
        leaks.extend(received.headers if any(secret in repr(received.headers) for secret in secrets) else ())

    data_dir, log = tmp_path / "data", tmp_path / "log"
    await migrate(own_postgres.url)
    async with Sandbox(pace_seconds=0.01, on_request=look) as sandbox:
        program = Program(data_dir, log, workers=2, upstream=sandbox.url, database_url=own_postgres.url)
        with ExitStack() as stack:
            stack.callback(program.close)
            await asyncio.to_thread(program.start)
            callers = await asyncio.to_thread(make_callers, program.url)
            secrets += [caller.key for caller in callers]
            world = World(program, own_postgres, callers, word=WORD, seed=SEED)
            await world.run(clients=CLIENTS, seconds=SECONDS)
            notes = world.notes

            await asyncio.to_thread(program.kill)
            await asyncio.to_thread(program.start)
            await shipped(own_postgres.url, notes)
            await asyncio.to_thread(program.orphans_ended)
            assert await asyncio.to_thread(program.stop) == 0
    print(dict(notes.counts), f"{len(notes.completed)} whole, {len(notes.unfinished)} begun")  # noqa: T201  # what was soaked

    connection = await asyncpg.connect(own_postgres.url)
    try:
        rows = await rows_of(connection)
        assert_rows_are_the_calls(notes, rows)
        await assert_sums_agree(connection, rows.values())
        assert await texts_with(connection, [*secrets, WORD]) == set()
        assert await texts_with(connection, [callers[0].key_id])  # what is there is found
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    assert not notes.hung
    assert nothing_waits(data_dir)
    assert unexpected(log) == []
    assert secrets_in([tmp_path, own_postgres.folder], [*secrets, WORD]) == set()
    assert all(secrets_in([place], [callers[0].key_id]) for place in (log, own_postgres.folder))
    assert leaks == []
    assert min(notes.counts[each] for each in ("killed workers", "answers cut", "200 ok")) > 0


def make_callers(url: str) -> list[Caller]:
    callers = []
    for user, team, tags in OWNERS:
        fields = {"user_id": user, "team_id": team, "tags": tags}
        body = json.dumps({name: value for name, value in fields.items() if value}).encode()
        fields_ = (f"Authorization: Bearer {MASTER_KEY}", "Content-Type: application/json")
        key = json.loads(ask(url, "POST /key/generate", *fields_, body=body).body)["key"]
        callers.append(Caller(key, digest(key), user, team, tuple(tags)))
    return callers


async def shipped(url: str, notes: Notes) -> None:
    """Wait until the ledger holds every completed call."""
    connection = await asyncpg.connect(url)
    missing = set(notes.completed)
    try:
        async with asyncio.timeout(SHIPPED_SECONDS):
            while missing:
                held = await connection.fetch("SELECT call_id::text AS id FROM ledger_calls")
                missing -= {row["id"] for row in held}
                await asyncio.sleep(0.1)  # another process's progress cannot be awaited
    except TimeoutError:
        pytest.fail(f"{len(missing)} of {len(notes.completed)} completed calls have no row: {sorted(missing)[:20]}")
    finally:
        await connection.close()


def assert_rows_are_the_calls(notes: Notes, rows: dict[str, Row]) -> None:
    assert set(notes.completed) <= set(rows)
    wrong = {call: notes.completed[call].differences(rows[call]) for call in notes.completed}
    assert {call: differences for call, differences in wrong.items() if differences} == {}
    # The others are calls whose clients got less than the whole answer.
    others = set(rows) - set(notes.completed) - notes.unfinished
    assert len(others) <= notes.headless
    assert {rows[call]["outcome"] for call in others} <= {
        "ok",
        "client_error",
        "upstream_error",
        "refused",
        "client_gone",
        "cut",
    }


def nothing_waits(data_dir: Path) -> bool:
    return not list((data_dir / "journal").glob("*/*.calls")) and not (data_dir / "journal" / "rejected.jsonl").exists()


def unexpected(log: Path) -> list[str]:
    """What the program said that nothing here explains: errors, and tracebacks outside of the log's lines."""
    said = [each for each in events(log) if each["level"] == "error"]
    raw = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("Traceback")]
    return raw + [str(each) for each in said if not each["event"].endswith("died and is replaced")]
