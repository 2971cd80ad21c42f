"""The document says what is served, and schemathesis, which believes it, finds nothing."""

import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from passthrough.admin.app import add_admin_routes, admin_endpoints
from passthrough.admin.spend import spend_endpoints
from passthrough.policy.keys import digest
from passthrough.proxy.authenticate import Authenticate
from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory
from tests.admin.conftest import MASTER, Administrator

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# Of the kinds of routes that there are, one each: the whole takes a minute and was seen to pass.
COVERED = "^/(key/generate|key/list|key/aliases|v2/key/info|audit|budget/update|team/member_add|user/list)$"


@pytest.fixture
async def address(database: Database, directory: KeyDirectory, aiohttp_server: AiohttpServer) -> str:
    app = web.Application()
    add_admin_routes(
        app,
        database=database,
        authenticate=Authenticate(directory, master_digest=digest(MASTER)),
        clock=time.time,
        obeyed=directory.caught_up,
        more=spend_endpoints(database, time.time),
    )
    return str((await aiohttp_server(app)).make_url("/openapi.json"))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--phases", "coverage", "--include-path-regex", COVERED], id="every boundary of every field"),
        pytest.param(["--phases", "fuzzing,stateful", "--max-examples", "4"], id="every route, at random"),
    ],
)
async def test_schemathesis_finds_nothing(address: str, options: list[str]) -> None:
    command = ["run", address, "--header", f"Authorization: Bearer {MASTER}", "--seed", "1", "--no-shrink"]
    checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]  # see the hooks
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        *command,
        *checks,
        *options,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_every_route_is_in_the_document(admin: Administrator, database: Database) -> None:
    document = await admin.get("/openapi.json", key=None)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in admin_endpoints(database, time.time)}
    assert document["openapi"].startswith("3.1")


async def test_every_reference_of_the_document_leads_somewhere_and_every_schema_is_used(admin: Administrator) -> None:
    document = await admin.get("/openapi.json", key=None)
    used = {reference.rpartition("/")[2] for reference in _references(document)}
    assert used == document["components"]["schemas"].keys()


async def test_the_page_for_people_has_every_route_and_fetches_nothing(admin: Administrator) -> None:
    async with admin.client.get("/docs") as answer:
        page = await answer.text()
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for path in (await admin.get("/openapi.json", key=None))["paths"]:
        assert f"<code>{path}</code>" in page
    assert not re.search(r"<(script|link|img|iframe)|src=|url\(|@import", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {"openapi.json"}


async def test_a_method_that_a_path_has_not_is_405_with_those_that_it_has(admin: Administrator) -> None:
    async with admin.client.delete("/key/info") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    async with admin.client.head("/docs") as answer:
        assert answer.status == 200


async def test_a_path_that_only_decodes_to_a_route_is_none(admin: Administrator) -> None:
    await admin.get("/key/l%69st", status=404)


def _references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {reference for item in value for reference in _references(item)}
    if not isinstance(value, dict):
        return set()
    return {value["$ref"]} if "$ref" in value else {r for item in value.values() for r in _references(item)}
