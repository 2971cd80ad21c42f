"""Sockets, signals, the drain: everything between the operating system and the application.

One worker serves in this process. Several, or a sandbox beside them, are processes of their own (`workers`)
that share one listening socket.
"""

import asyncio
import functools
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from passthrough.app import Service, service
from passthrough.errors import Refusal, UserError
from passthrough.policy.credentials import Credentials
from passthrough.policy.ledger import uuid7
from passthrough.proxy.refuse import refuse
from passthrough.sandbox.access import DEFAULT_CREDENTIALS
from passthrough.sandbox.server import Sandbox
from passthrough.settings import Settings
from passthrough.storage.database import migrate as migrate_database
from passthrough.storage.database import require_head
from passthrough.storage.embedded import embedded
from passthrough.trial import introduction, trial_key
from passthrough.workers import Supervisor

_log = logging.getLogger(__name__)

# Short-lived Bedrock API keys and session tokens are kilobytes; the interface promises 16 KB for a field.
MAX_FIELD_BYTES = 32 * 1024
BACKLOG = 4096
ENOUGH_FILES = 20_480  # 10,000 streams in one worker
KEEPALIVE_SECONDS = 75.0  # nginx's; longer than the idle time of the usual clients' pools


class Protocol(web.RequestHandler):
    """aiohttp's server protocol, with a refusal in our shape for what is not HTTP."""

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  # the interface
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # tells more of the request than an answer should
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004  # the border between their fault and ours
            _log.error("a request failed for a reason of ours", exc_info=exc)
            refusal = Refusal(status, "InternalServerException", "The proxy failed to serve the request.")
        else:
            refusal = Refusal(
                status, "ValidationException", "The request is not valid HTTP/1.1, or its head is too large."
            )
        response = refuse(refusal, uuid7(time.time()))
        response.force_close()
        return response


def listen(host: str, port: int) -> socket.socket:
    """Bind the listening socket; `UserError` when that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UserError(f"Cannot listen on {host}:{port}: {error.strerror or error}; choose another --port.") from None
    sock.listen(BACKLOG)
    sock.setblocking(False)  # noqa: FBT003  # the standard library's signature
    return sock


def server_tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS for the listening socket from PEM files; None without; `UserError` when they do not serve."""
    if not cert and not key:
        return None
    if not cert or not key:
        raise UserError("--tls-cert and --tls-key belong together: give both.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"The TLS certificate or key cannot be used: {error}.") from None
    return context


async def serve(
    settings: Settings,
    sock: socket.socket,
    *,
    database_url: str,
    tls: ssl.SSLContext | None = None,
    sandbox: Credentials | None = None,
    metrics_dir: Path | None = None,
    life: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal cuts what is still open.

    `life` is a file descriptor whose end means the same as SIGTERM (`workers`).
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def asked_to_stop() -> None:
        hurry.set() if stop.is_set() else stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    if life is not None:
        _at_end_of(life, asked_to_stop)
    async with service(settings, database_url=database_url, sandbox=sandbox, metrics_dir=metrics_dir) as served:
        server, runner = await accept(served, sock, tls)
        _log.info("serving", extra={"address": sock.getsockname()[:2], "tls": tls is not None, "pid": os.getpid()})
        await stop.wait()
        await _drain(settings, served, server, runner, hurry)


async def accept(
    served: Service, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, web.AppRunner]:
    """Begin to serve what is listened for on `sock`; the caller closes the server and cleans the runner up."""
    runner = web.AppRunner(served.application, handler_cancellation=True, access_log=None)
    await runner.setup()
    assert runner.server is not None  # noqa: S101  # set up a line above
    loop = asyncio.get_running_loop()
    protocol = functools.partial(
        Protocol,
        runner.server,
        loop=loop,
        access_log=None,  # type: ignore[arg-type]  # None is what its own runner passes for "none"
        auto_decompress=False,  # bodies are forwarded as they came
        max_line_size=MAX_FIELD_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        keepalive_timeout=KEEPALIVE_SECONDS,
    )
    return await loop.create_server(protocol, sock=sock, ssl=tls, backlog=BACKLOG), runner


def _at_end_of(life: int, react: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(life)
        react()

    loop.add_reader(life, ended)


async def _drain(
    settings: Settings, served: Service, server: asyncio.Server, runner: web.AppRunner, hurry: asyncio.Event
) -> None:
    """Stop accepting, let open calls finish for a while, cut the rest."""
    served.handler.draining = True
    _log.info("draining", extra={"open_calls": len(served.handler.calls)})
    server.close()
    assert runner.server is not None  # noqa: S101  # it was set up
    runner.server.pre_shutdown()  # idle connections
    try:
        async with asyncio.timeout(settings.drain_seconds):
            await _first(served.handler.drained(), hurry.wait())
    except TimeoutError:
        _log.warning("drain time is over", extra={"cut_calls": len(served.handler.calls)})
    for call in tuple(served.handler.calls):
        call.cancel()
    await runner.cleanup()
    _log.info("stopped")


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of several; the others are cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


MASTER_KEY_FILE = "master-key"


def run(settings: Settings, *, migrate: bool, tls: ssl.SSLContext | None, sandbox: bool) -> None:
    """Serve as `passthrough serve` does: database, socket, sandbox and workers, until told to stop."""
    with ExitStack() as stack:
        url = settings.database_url
        if url is None:
            url = stack.enter_context(embedded(settings.data_dir))
            settings = _with_master_key(settings)
        asyncio.run(migrate_database(url) if migrate or not settings.database_url else require_head(url))
        if settings.region_is_a_guess and not sandbox:
            _log.warning("no AWS_REGION is set", extra={"region": settings.region})
        _raise_file_limit()
        sock = stack.enter_context(listen(settings.host, settings.port))
        supervisor = Supervisor()
        credentials = None
        if sandbox:
            credentials = DEFAULT_CREDENTIALS
            settings = _at_sandbox(settings, supervisor)
            key = trial_key(settings.data_dir, url)
            scheme, host = "https" if tls else "http", f"[{settings.host}]" if ":" in settings.host else settings.host
            sys.stdout.write(introduction(key, f"{scheme}://{host}:{sock.getsockname()[1]}"))
            sys.stdout.flush()
        if settings.workers == 1 and not sandbox:
            uvloop.run(serve(settings, sock, database_url=url, tls=tls))
            return

        metrics_dir = _fresh(settings.data_dir / "metrics") if settings.workers > 1 else None
        ready = functools.partial(
            serve, settings, sock, database_url=url, tls=tls, sandbox=credentials, metrics_dir=metrics_dir
        )

        def worker(life: int) -> None:
            uvloop.run(ready(life=life))

        for number in range(settings.workers):
            supervisor.add(f"worker {number + 1}", worker)
        supervisor.run()


def _raise_file_limit() -> None:
    """Each open stream needs two files: one to the client, one to AWS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        _log.warning(
            "the limit of open files is low: each open stream needs two",
            extra={"limit": hard, "remedy": f"ulimit -Hn {ENOUGH_FILES}, or LimitNOFILE= of the service"},
        )


def _fresh(folder: Path) -> Path:
    """An empty folder: what another run left there is nobody's any more."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _with_master_key(settings: Settings) -> Settings:
    """With the embedded database a key is made once and kept beside it, readable by its owner alone."""
    if settings.master_key:
        return settings
    path = settings.data_dir / MASTER_KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write("sk-" + secrets.token_urlsafe(32))
    _log.info("the master key is in a file", extra={"path": str(path)})
    return replace(settings, master_key=path.read_text().strip())


def _at_sandbox(settings: Settings, supervisor: Supervisor) -> Settings:
    """Put a sandbox beside the workers, and its address in place of AWS's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def stand_in(life: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the parent says when
        _at_end_of(life, ended.set)
        async with Sandbox(port=port):
            await ended.wait()

    supervisor.add("sandbox", lambda life: uvloop.run(stand_in(life)), serves_others=True)
    url = f"http://127.0.0.1:{port}"
    return replace(settings, runtime_endpoint=url, agent_runtime_endpoint=url, control_endpoint=url, bearer=None)
