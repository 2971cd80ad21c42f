"""Processes under measurement: started on a core of their own, their CPU time and memory read from /proc."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60.0  # LiteLLM imports for 10 to 20 of them


class Cores:
    """The proxy has one core, and everything else the others. Restores nothing: for a program of its own."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.proxy = {cores[0]}
        self.others = set(cores[1:]) or self.proxy
        os.sched_setaffinity(0, self.others)


@contextmanager
def running(
    command: Sequence[str], *, port: int, cores: set[int], environment: Mapping[str, str], log: Path
) -> Iterator[int]:
    """Start a server, wait until it listens on `port`, give its process id, stop it at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509  # no threads here
        )
    try:
        _await_port(process, port, log)
        yield process.pid
    except OSError:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"A server did not start on port {port}; the end of its output:\n{tail}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int(_stat(int(path.name))[1])
            except OSError:  # gone meanwhile
                continue
            children.setdefault(parent, []).append(int(path.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def cpu_seconds(processes: Sequence[int]) -> float:
    """User and system time that they have used."""
    used = 0
    for process in processes:
        try:
            fields = _stat(process)
        except OSError:  # a backend of PostgreSQL that ended
            continue
        used += int(fields[11]) + int(fields[12])
    return used / TICKS_PER_SECOND


def resident_bytes(processes: Sequence[int]) -> int:
    total = 0
    for process in processes:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        total += int(found[1]) * 1024 if found else 0
    return total


def _stat(process: int) -> list[str]:
    # the name in parentheses may hold spaces
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def machine() -> str:
    """Say on what was measured, in a line."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    kernel = os.uname()
    return f"{model[1] if model else kernel.machine}, {os.cpu_count()} cores, {kernel.sysname} {kernel.release}"
