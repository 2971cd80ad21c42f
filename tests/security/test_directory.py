"""What is kept of keys stays bounded, and is trusted only while changes are known to be heard."""

import asyncio
from collections.abc import Mapping

from passthrough.storage.directory import Directory, Found


async def test_what_a_value_does_not_show_weighs_too() -> None:
    async def load(identifiers: list[str]) -> Mapping[str, Found[str]]:
        return {identifier: Found("x", (f"key:{identifier}",), hidden=600) for identifier in identifiers}

    directory = Directory("key", load, most_bytes=1000)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(directory.run())
        directory.regained()
        await directory.find("a")
        await directory.find("b")
        task.cancel()
    assert (directory.cached("a"), directory.cached("b")) == (None, "x")
