"""`passthrough serve` from settings to processes: database, master key, socket, sandbox, workers."""

import asyncio
import functools
import logging
import resource
import shutil
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import uvloop

from passthrough import master_key
from passthrough.app import check
from passthrough.certificates import Certificate
from passthrough.child import in_a_child
from passthrough.errors import UserError
from passthrough.sandbox.access import DEFAULT_CREDENTIALS
from passthrough.sandbox.server import Sandbox
from passthrough.serving import at_end_of, listen, serve
from passthrough.settings import Settings
from passthrough.storage.embedded import embedded, usable
from passthrough.storage.migrations import migrate as migrate_database
from passthrough.storage.migrations import require_head
from passthrough.trial import introduction, trial_key
from passthrough.workers import END_NOW, STOPPING, Supervisor

_log = logging.getLogger(__name__)

ENOUGH_FILES = 20_480  # 10,000 streams in one worker


def run(settings: Settings, *, migrate: bool, certificate: Certificate | None, sandbox: bool) -> None:
    """Serve as `passthrough serve` does: database, socket, sandbox and workers, until told to stop."""
    check(settings)
    with usable(settings.data_dir):
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        TemporaryFile(dir=settings.data_dir).close()
    with ExitStack() as stack:
        url = settings.database_url
        if url is None:
            url = stack.enter_context(embedded(settings.data_dir, restarted=True))
            settings = _with_master_key(settings)
        elif not settings.master_key:
            raise UserError(
                "PASSTHROUGH_MASTER_KEY is not set; set it to a long random text, such as sk-… of 32 letters."
            )
        if weakness := master_key.weakness(settings.master_key or ""):
            _log.warning("the master key is weak", extra={"cause": weakness})
        in_a_child(_migrate if migrate or not settings.database_url else _require_head, url)
        if settings.region_is_a_guess and not sandbox:
            _log.warning("no AWS_REGION is set", extra={"region": settings.region})
        _raise_file_limit()
        sock = stack.enter_context(listen(settings.host, settings.port))
        supervisor = Supervisor()
        credentials = None
        if sandbox:
            credentials = DEFAULT_CREDENTIALS
            settings = _at_sandbox(settings, supervisor, sock)
            key = trial_key(settings.data_dir, url)
            scheme, host = (
                "https" if certificate else "http",
                f"[{settings.host}]" if ":" in settings.host else settings.host,
            )
            sys.stdout.write(introduction(key, f"{scheme}://{host}:{sock.getsockname()[1]}"))
            sys.stdout.flush()
        if settings.workers == 1 and not sandbox:
            uvloop.run(serve(settings, sock, database_url=url, certificate=certificate))
            return

        metrics_dir = _fresh(settings.data_dir / "metrics") if settings.workers > 1 else None
        ready = functools.partial(
            serve,
            settings,
            sock,
            database_url=url,
            certificate=certificate,
            sandbox=credentials,
            metrics_dir=metrics_dir,
        )

        def worker(life: int) -> None:
            uvloop.run(ready(life=life))

        for number in range(settings.workers):
            supervisor.add(f"worker {number + 1}", worker)
        supervisor.run(at_stop=sock.close)  # else its backlog would take connections that nobody accepts


def _migrate(url: str) -> None:
    asyncio.run(migrate_database(url))


def _require_head(url: str) -> None:
    asyncio.run(require_head(url))


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
    if settings.master_key:
        return settings
    key = master_key.made_once(settings.data_dir)
    _log.info("the master key is in a file", extra={"path": str(settings.data_dir / master_key.FILE)})
    return replace(settings, master_key=key)


def _at_sandbox(settings: Settings, supervisor: Supervisor, workers_sock: socket.socket) -> Settings:
    """Put a sandbox beside the workers, and its address in place of AWS's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def stand_in(life: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in STOPPING:
            loop.add_signal_handler(number, lambda: None)  # the parent says when: workers still need it
        loop.add_signal_handler(END_NOW, ended.set)
        at_end_of(life, ended.set)
        workers_sock.close()  # inherited: it would listen for as long as any process has it open
        async with Sandbox(port=port):
            await ended.wait()

    supervisor.add("sandbox", lambda life: uvloop.run(stand_in(life)), serves_others=True)
    url = f"http://127.0.0.1:{port}"
    return replace(settings, runtime_endpoint=url, agent_runtime_endpoint=url, control_endpoint=url, bearer=None)
