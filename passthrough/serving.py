"""Sockets, signals, the drain: everything between the operating system and the application.

Which process this runs in, and how many of them there are, is for `launch` to say.
"""

import asyncio
import functools
import gc
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from passthrough.app import PREFIXES, Service, service
from passthrough.certificates import Certificate
from passthrough.errors import UserError
from passthrough.inbound import Protocol, Room
from passthrough.output import STANDARD
from passthrough.policy.credentials import Credentials
from passthrough.settings import Settings
from passthrough.wire.dial import keep_alive
from passthrough.workers import ECHO_SECONDS, END_NOW, STOPPING

_log = logging.getLogger(__name__)

# Short-lived Bedrock API keys and session tokens are kilobytes; the interface promises 16 KB for a field.
MAX_FIELD_BYTES = 32 * 1024
BACKLOG = 4096
COLLECT_AFTER = 20_000  # objects made and not freed: a few MB at most wait for the collector
RESERVED_FILES = (
    64  # the journal's, the log's, some fifteen connections to PostgreSQL, and what Python opens for a moment
)
CUT_SECONDS = 2.0  # a call that is cut needs none, one that was about to give its client up a second
KEEPALIVE_SECONDS = 75.0  # nginx's; longer than the idle time of the usual clients' pools


def listen(host: str, port: int) -> socket.socket:
    """Bind the listening socket; `UserError` when that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(sock)  # those that it accepts inherit it: load balancers forget silent connections, too
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UserError(f"Cannot listen on {host}:{port}: {error.strerror or error}; choose another --port.") from None
    sock.listen(BACKLOG)
    sock.setblocking(False)  # noqa: FBT003  # the standard library's signature
    return sock


async def serve(
    settings: Settings,
    sock: socket.socket,
    *,
    database_url: str,
    certificate: Certificate | None = None,
    sandbox: Credentials | None = None,
    metrics_dir: Path | None = None,
    life: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal, or `END_NOW`, cuts what is still open.

    `life` is a file descriptor whose end means the same as SIGTERM: there is a parent (`workers`), who counts signals.
    """
    stop, hurry = _asked_to_stop(alone=life is None)
    if life is not None:
        at_end_of(life, stop.set)
    opened = service(settings, database_url=database_url, sandbox=sandbox, metrics_dir=metrics_dir)
    with STANDARD.by_thread():
        async with opened as served, _followed(certificate) as tls:
            server, runner = await accept(served, sock, tls)
            _spare_the_collector()
            _log.info("serving", extra={"address": sock.getsockname()[:2], "tls": tls is not None, "pid": os.getpid()})
            try:
                await stop.wait()
                await _drain(settings, served, server, runner, hurry)
            finally:  # also when a part of the service failed: nothing is answered that cannot be recorded
                await _end(served, server, runner)


@asynccontextmanager
async def _followed(certificate: Certificate | None) -> AsyncIterator[ssl.SSLContext | None]:
    """What to listen with, kept up to date meanwhile."""
    if certificate is None:
        yield None
        return
    async with asyncio.TaskGroup() as group:
        following = group.create_task(certificate.follow())
        try:
            yield certificate.context
        finally:
            following.cancel()


def _asked_to_stop(*, alone: bool) -> tuple[asyncio.Event, asyncio.Event]:
    """Events that signals set: to come to an end, and to do so at once."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    asked_at = 0.0

    def asked() -> None:
        nonlocal asked_at
        if not stop.is_set():
            stop.set()
            asked_at = loop.time()
        elif alone and loop.time() - asked_at >= ECHO_SECONDS:
            hurry.set()

    for number in STOPPING:
        loop.add_signal_handler(number, asked)
    loop.add_signal_handler(END_NOW, hurry.set)
    return stop, hurry


async def accept(
    served: Service, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, web.AppRunner]:
    """Begin to serve what is listened for on `sock`; the caller closes the server and cleans the runner up."""
    runner = web.AppRunner(served.application, handler_cancellation=True, access_log=None)
    await runner.setup()
    assert runner.server is not None  # noqa: S101  # set up a line above
    runner.server.request_handler = _calls_first(served.handler, runner.server.request_handler)
    loop = asyncio.get_running_loop()
    protocol = functools.partial(
        Protocol,
        runner.server,
        refused=served.refused,
        server_ends=lambda: sock.fileno() < 0,
        room=Room(max(1, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_FILES) // 2)),
        loop=loop,
        access_log=None,
        auto_decompress=False,  # bodies are forwarded as they came
        max_line_size=MAX_FIELD_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        keepalive_timeout=KEEPALIVE_SECONDS,
    )
    return await loop.create_server(protocol, sock=sock, ssl=tls, backlog=BACKLOG), runner


_CALLS = tuple(prefix + "/" for prefix in PREFIXES)

_Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _calls_first(handler: _Serve, application: _Serve) -> _Serve:
    """Hand a call to its handler without asking aiohttp's router, which would find the same.

    What waits for `100 Continue` goes the long way: there aiohttp sends it.
    """

    def serve(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        if request.raw_path.startswith(_CALLS) and "Expect" not in request.headers:
            return handler(request)
        return application(request)

    return serve


def _spare_the_collector() -> None:
    """Let the garbage collector run rarely, and never over what lives as long as the process.

    A call leaves no cycles behind, but makes hundreds of objects: with Python's threshold of 700 the collector took
    8 % of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def at_end_of(life: int, react: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(life)
        react()

    loop.add_reader(life, ended)


async def _drain(
    settings: Settings, served: Service, server: asyncio.Server, runner: web.AppRunner, hurry: asyncio.Event
) -> None:
    """Say that the end is near, for whoever sends calls here; stop accepting; let open calls finish for a while."""
    served.handler.draining = True
    _log.info("draining", extra={"open_calls": len(served.handler.calls)})
    with suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_delay_seconds):
            await hurry.wait()
    await _stop_accepting(server)
    assert runner.server is not None  # noqa: S101  # it was set up
    runner.server.pre_shutdown()  # idle connections
    try:
        async with asyncio.timeout(settings.drain_seconds):
            await _first(served.handler.drained(), hurry.wait())
    except TimeoutError:
        _log.warning("drain time is over", extra={"cut_calls": len(served.handler.calls)})


async def _stop_accepting(server: asyncio.Server) -> None:
    """Close the listening socket when what was accepted has become a connection: asyncio drops what has not."""
    for sock in server.sockets:
        asyncio.get_running_loop().remove_reader(sock.fileno())
    await asyncio.sleep(0)
    server.close()


async def _end(served: Service, server: asyncio.Server, runner: web.AppRunner) -> None:
    """Cut what is still open, and wait until all of it is on record."""
    server.close()
    for call in tuple(served.handler.calls):
        call.cancel()
    await runner.cleanup()
    with suppress(TimeoutError):
        async with asyncio.timeout(CUT_SECONDS):
            await served.handler.drained()
    _log.info("stopped")


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of several; the others are cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
