"""The proxy as its users meet it: the real application on a real socket, with a sandbox as AWS.

`running` serves in the event loop of the test, `in_thread` in one of its own, so that a client that blocks
(boto3, the SDKs) can be called as its users call it. `command` is the program itself, in a process.
"""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import uvloop
from aiohttp import ClientSession, ClientTimeout

from passthrough.app import Service, service
from passthrough.policy.credentials import Credentials
from passthrough.sandbox import DEFAULT_CREDENTIALS, Received, Sandbox
from passthrough.serving import accept, listen
from passthrough.settings import Settings

T = TypeVar("T")

MASTER_KEY = "sk-master-of-the-tests-0123456789"
PATIENCE_SECONDS = 30.0  # what takes longer than this hangs


@dataclass
class Running:
    """A proxy that serves, and what stands behind it.

    `url` has no slash at its end. `received` is every request that reached the sandbox, `sandbox` None when
    another upstream was given.
    """

    url: str
    service: Service
    settings: Settings
    database_url: str = field(repr=False)
    sandbox: Sandbox | None
    received: list[Received]

    @property
    def bedrock(self) -> str:
        """The base URL that clients of Bedrock are given."""
        return f"{self.url}/bedrock"

    async def key(self, **fields: Any) -> str:
        """A new virtual key, made through the API; `fields` as in `/key/generate`."""
        answer = await self.administrate("POST", "/key/generate", fields)
        return str(answer["key"])

    async def administrate(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        """Call the admin API with the master key; anything but success fails the test."""
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        async with (
            ClientSession(timeout=ClientTimeout(PATIENCE_SECONDS)) as session,
            session.request(method, self.url + path, json=document, headers=headers, ssl=False) as response,
        ):
            assert response.status == 200, await response.text()
            return await response.json()

    async def rows(self) -> list[dict[str, Any]]:
        """The ledger, oldest call first, once every call that has ended is in it."""
        await self.service.ledger.flush(PATIENCE_SECONDS)
        return await select(self.database_url, "SELECT * FROM ledger ORDER BY call_id")


@asynccontextmanager
async def running(
    database_url: str,
    data_dir: Path,
    *,
    upstream: str | None = None,
    credentials: Credentials = DEFAULT_CREDENTIALS,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Serve from this event loop on a free port.

    `upstream`: the address of something else than a sandbox; `credentials` are what the proxy signs with;
    `settings` replace those of `Settings`.
    """
    received: list[Received] = []
    async with _upstream(upstream, credentials, received) as (address, sandbox):
        wanted = Settings(
            **{
                "master_key": MASTER_KEY,
                "data_dir": data_dir,
                "log_level": "warning",
                "runtime_endpoint": address,
                "agent_runtime_endpoint": address,
                "control_endpoint": address,
                "disconnect_drain_seconds": 60.0,
                **settings,
            }
        )
        async with service(wanted, database_url=database_url, sandbox=credentials) as served:
            sock = listen("127.0.0.1", 0)
            server, runner = await accept(served, sock, tls)
            url = f"{'https' if tls else 'http'}://127.0.0.1:{sock.getsockname()[1]}"
            try:
                yield Running(url, served, wanted, database_url, sandbox, received)
            finally:
                server.close()
                await runner.cleanup()


@asynccontextmanager
async def _upstream(
    address: str | None, credentials: Credentials, received: list[Received]
) -> AsyncIterator[tuple[str, Sandbox | None]]:
    if address is not None:
        yield address, None
        return
    async with Sandbox(credentials=credentials, pace_seconds=0, on_request=received.append) as sandbox:
        yield sandbox.url, sandbox


class Blocking:
    """A `Running` for tests that block: the same, without `await`."""

    def __init__(self, proxy: Running, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy = proxy
        self.url = proxy.url
        self.bedrock = proxy.bedrock
        self.received = proxy.received
        self._loop = loop

    def key(self, **fields: Any) -> str:
        return self.run(self.proxy.key(**fields))

    def rows(self) -> list[dict[str, Any]]:
        return self.run(self.proxy.rows())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_SECONDS)


@contextmanager
def in_thread(opens: Callable[[], AbstractAsyncContextManager[Running]]) -> Iterator[Blocking]:
    """Serve from a thread with the event loop that the program uses; `opens` is `running` with its arguments."""
    begun: Future[Blocking] = Future()
    end = asyncio.Event()

    async def serve() -> None:
        try:
            async with opens() as proxy:
                begun.set_result(Blocking(proxy, asyncio.get_running_loop()))
                await end.wait()
        except BaseException as error:
            if not begun.done():
                begun.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: uvloop.run(serve()), name="proxy", daemon=True)
    thread.start()
    proxy = begun.result(PATIENCE_SECONDS)
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(end.set)
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "the proxy did not come to its end"


@dataclass
class Command:
    """`passthrough serve` in a process of its own; `lines` are its log, each a JSON object.

    While `reads` is not set, nobody reads what it says.
    """

    process: subprocess.Popen[str]
    url: str
    lines: list[dict[str, Any]]
    reader: threading.Thread = field(repr=False)
    reads: threading.Event = field(repr=False)

    def tell(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, once it has ended and all it said is in `lines`."""
        code = self.process.wait(PATIENCE_SECONDS)
        self.reads.set()
        self.reader.join(PATIENCE_SECONDS)
        return code


@contextmanager
def command(data_dir: Path, *arguments: str, **environment: str | None) -> Iterator[Command]:
    """Run `passthrough serve` on a free port; `environment` is added to this process's without its AWS settings.

    A variable that is None is left out. Ended by SIGTERM at the latest.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PASSTHROUGH_", "LITELLM_"))
    }
    own: dict[str, str | None] = {
        "PASSTHROUGH_MASTER_KEY": MASTER_KEY,
        "PASSTHROUGH_DATA_DIR": str(data_dir),
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **environment,
    }
    process = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-m", "passthrough", "serve", "--port", "0", *arguments],
        env={**inherited, **{name: value for name, value in own.items() if value is not None}},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: list[dict[str, Any]] = []
    begun: Future[str] = Future()
    reads = threading.Event()
    reads.set()
    reader = threading.Thread(target=_read, args=(process, lines, begun, reads), daemon=True)
    reader.start()
    try:
        address = begun.result(PATIENCE_SECONDS)
        url = f"{'https' if '--tls-cert' in arguments else 'http'}://{address}"
        yield Command(process, url, lines, reader, reads)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reads.set()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def _read(
    process: "subprocess.Popen[str]", lines: list[dict[str, Any]], begun: "Future[str]", reads: threading.Event
) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        reads.wait()
        if not line.startswith("{"):  # what `--sandbox` prints to be pasted
            continue
        lines.append(json.loads(line))
        if lines[-1]["event"] == "serving" and not begun.done():
            host, port = lines[-1]["address"]
            begun.set_result(f"{host}:{port}")
    if not begun.done():
        begun.set_exception(AssertionError(f"it ended before it served: {lines}"))


async def select(database_url: str, statement: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    connection = await asyncpg.connect(database_url)
    try:
        return [dict(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


@contextmanager
def database(postgres: str, template: str) -> Iterator[str]:
    """A database at head for longer than a test: `postgres` and `template` are conftest's fixtures."""
    name = f"test_{uuid.uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(postgres)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield postgres.replace("@/postgres?", f"@/{name}?")
    finally:
        asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))
