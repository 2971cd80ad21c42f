"""`passthrough serve` with worker processes, to be killed in every way; and the PostgreSQL that it uses.

What the program writes goes to a file, so that nobody has to read it while it is being killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from passthrough.sandbox import DEFAULT_CREDENTIALS
from passthrough.storage.embedded import embedded
from tests.fakes.running import MASTER_KEY

PATIENCE_SECONDS = 30.0  # a start takes one or two; what takes longer than this hangs
_POLL_SECONDS = 0.02  # other processes cannot be awaited


class Program:
    """Starts and kills the program; `url` is where it serves since it was last started. Everything here blocks."""

    def __init__(self, data_dir: Path, log: Path, *, workers: int, upstream: str, database_url: str) -> None:
        self._log = log
        self._arguments = ["-m", "passthrough", "serve", "--port", "0", "--workers", str(workers)]
        foreign = ("AWS_", "PASSTHROUGH_", "LITELLM_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "DATABASE_URL": database_url,
            "PASSTHROUGH_MASTER_KEY": MASTER_KEY,
            "PASSTHROUGH_DATA_DIR": str(data_dir),
            "PASSTHROUGH_DRAIN_SECONDS": "5",
            "PASSTHROUGH_DISCONNECT_DRAIN_SECONDS": "5",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": DEFAULT_CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": DEFAULT_CREDENTIALS.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": upstream,
            "AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME": upstream,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._orphans: list[int] = []
        self.url = ""

    def start(self, **environment: str) -> None:
        """Return once it serves."""
        with self._log.open("ab") as log:
            begins = log.tell()
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, *self._arguments], env=self._environment | environment, stdout=log, stderr=log
            )
        found = _eventually(lambda: self._address(begins), "the program serves")
        self.url = f"http://{found[0]}:{found[1]}"

    def workers(self) -> list[int]:
        """The worker processes that are alive."""
        return _children(self._process.pid) if self._process is not None else []

    def replaced(self, workers: list[int]) -> None:
        """Wait until there are as many other workers."""
        _eventually(lambda: len(set(self.workers()) - set(workers)) == len(workers), "the workers are replaced")

    def kill(self) -> None:
        """Kill everything at once: the supervisor is stopped first, so that it replaces nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        for pid in (*self.workers(), self._process.pid):
            kill_quietly(pid)
        self._process.wait()

    def kill_supervisor(self) -> None:
        """Kill the supervisor alone; its workers drain and end on their own (see `orphans_ended`)."""
        assert self._process is not None
        self._orphans += self.workers()
        self._process.kill()
        self._process.wait()

    def orphans_ended(self) -> None:
        """Wait until the workers of a supervisor that was killed are gone."""
        _eventually(lambda: not any(_is_alive(pid) for pid in self._orphans), "the orphaned workers end")
        self._orphans.clear()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """Leave no process behind, whatever has happened."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for pid in self._orphans:
            kill_quietly(pid)

    def _address(self, begins: int) -> tuple[str, int] | None:
        assert self._process is not None
        for line in self._log.read_bytes()[begins:].splitlines(keepends=True):
            event = _event(line)
            if event.get("event") == "serving" and event["pid"] in self.workers():
                host, port = event["address"]
                return host, port
        assert self._process.poll() is None, f"it ended before it served: {self._log.read_text()[-2000:]}"
        return None


class Postgres:
    """A PostgreSQL that comes and goes; its URL stays. `folder` has a short name: sockets want one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running = ExitStack()
        self.url = ""

    def start(self) -> None:
        # The kernel outlives every process here: what was written needs no fsync. A commit must be written, though.
        self.url = self._running.enter_context(embedded(self.folder, options=("fsync=off", "full_page_writes=off")))

    def stop(self) -> None:
        """Stop it, cutting its connections."""
        self._running.close()

    def crash(self) -> None:
        """End it without a checkpoint, as if it had been killed: transactions stop where they are."""
        pid = int((self.folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        _eventually(lambda: not _is_alive(pid), "PostgreSQL ends")
        self._running.close()


def kill_quietly(pid: int) -> None:
    """Kill a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def secrets_in(paths: Iterable[Path], secrets: Iterable[str]) -> set[tuple[str, str]]:
    """Which of the secrets stand in which of the files below `paths`."""
    needles = [(secret, secret.encode()) for secret in secrets]
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    found = set()
    for file in files:
        data = file.read_bytes()
        found |= {(str(file), secret) for secret, needle in needles if needle in data}
    return found


def events(log: Path) -> list[dict[str, Any]]:
    """The lines of the log that are whole: a process that is killed may leave half of one."""
    return [event for line in log.read_bytes().splitlines() if (event := _event(line))]


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _eventually(holds: Callable[[], Any], what: str) -> Any:
    """The first true answer of `holds`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(_POLL_SECONDS)
    raise AssertionError(f"it took too long until {what}")


def _children(parent: int) -> list[int]:
    return [pid for pid, (state, of) in _processes() if of == parent and state != "Z"]


def _is_alive(pid: int) -> bool:
    return any(each == pid and state != "Z" for each, (state, _) in _processes())


def _processes() -> list[tuple[int, tuple[str, int]]]:
    """Every process with its state and parent, from proc_pid_stat(5)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found.append((int(entry.name), (state, int(parent))))
    return found
