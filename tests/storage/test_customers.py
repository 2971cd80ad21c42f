"""Restricted customers are in the process, and learn of changes as keys do."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import delete, insert, update

from passthrough.errors import Unavailable
from passthrough.policy.customers import Customer, bound
from passthrough.policy.keys import MASTER, VirtualKey
from passthrough.storage.database import Database, open_database
from passthrough.storage.keys import key_directory
from passthrough.storage.schema import Customer as Row
from tests.fakes.cutting import cutting


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            with suppress(Unavailable):  # nothing has been read yet
                if done():
                    return
            await asyncio.sleep(0.001)  # a dict is read: there is nothing to await


async def change(database: Database, *statements: object) -> None:
    async with database.begin() as connection:
        for statement in statements:
            await connection.execute(statement)


async def test_only_the_restricted_are_known_and_changes_are_heard(database: Database) -> None:
    await change(
        database,
        insert(Row).values(user_id="free"),
        insert(Row).values(user_id="blocked", blocked=True),
        insert(Row).values(user_id="listed", models=["amazon.*"]),
    )
    async with key_directory(database) as directory:
        await until(lambda: directory.customer("blocked") is not None)
        assert directory.customer("blocked") == Customer("blocked", blocked=True)
        assert directory.customer("listed") == Customer("listed", models=("amazon.*",))
        assert directory.customer("free") is None
        await change(
            database,
            update(Row).where(Row.user_id == "free").values(blocked=True),
            delete(Row).where(Row.user_id == "listed"),
        )
        await until(lambda: directory.customer("free") is not None and directory.customer("listed") is None)
        assert directory.customer("blocked") is not None


async def test_what_was_read_last_holds_while_postgresql_is_away_and_changes_apply_on_return(
    database: Database, database_url: str
) -> None:
    await change(database, insert(Row).values(user_id="a", blocked=True), insert(Row).values(user_id="b"))
    async with (
        cutting(database_url) as proxy,
        open_database(proxy.url) as distant,
        key_directory(distant) as directory,
    ):
        await until(lambda: directory.customer("a") is not None)
        await proxy.cut()
        await change(database, update(Row).where(Row.user_id == "b").values(blocked=True))
        assert directory.customer("a") is not None
        await proxy.mend()
        await until(lambda: directory.customer("b") is not None)


async def test_who_cannot_listen_reads_again_from_time_to_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passthrough.storage.customers._DEAF_SECONDS", 0.01)
    async with key_directory(database) as directory:
        await directory.listening()
        directory._changes._lost()
        monkeypatch.setattr(directory._changes, "_heard", lambda *_: None)
        await change(database, insert(Row).values(user_id="a", blocked=True))
        await until(lambda: directory.customer("a") is not None)


def test_what_restricts_the_customer_restricts_the_key_for_this_call() -> None:
    key = VirtualKey(key_id="0" * 64, models=("amazon.*",), model_lists=(("amazon.*",),))
    assert bound(key, None) is key
    assert bound(key, Customer("c")) is key
    blocked = bound(key, Customer("c", blocked=True))
    assert (blocked.blocked, blocked.blocked_by) == (True, "customer")
    assert bound(key, Customer("c", models=("a.b",))).model_lists == (("amazon.*",), ("a.b",))
    assert bound(VirtualKey(key_id="0" * 64, models=("x",)), Customer("c", models=("a",))).model_lists == (
        ("x",),
        ("a",),
    )
    assert bound(MASTER, Customer("c", blocked=True)) is MASTER
