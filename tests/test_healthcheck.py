"""The image's question whether its server lives, asked of real servers by the program that the image runs."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession

from passthrough.healthcheck import trouble
from passthrough.serving import listen
from tests.fakes.certificates import Authority
from tests.fakes.running import command, running


def ask(url: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Ask as the image does, with the port of `url` as the only setting unless `environ` has more."""
    port = url.rpartition(":")[2]
    return subprocess.run(
        [sys.executable, "-m", "passthrough.healthcheck"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PASSTHROUGH_PORT": port, **environ},
    )


@contextmanager
def listening(host: str) -> Iterator[str]:
    """A server that accepts and says nothing."""
    with listen(host, 0) as sock:
        yield f"http://{host}:{sock.getsockname()[1]}"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104  # what the image listens on
def test_a_server_that_lives_is_found_at_its_port(database_url: str, tmp_path: Path, host: str) -> None:
    with command(tmp_path, "--host", host, DATABASE_URL=database_url) as served:
        asked = ask(served.url, PASSTHROUGH_HOST=host)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")


def test_a_server_with_tls_is_found_whatever_its_certificate_names(database_url: str, tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("proxy.example")
    arguments = "--tls-cert", str(cert), "--tls-key", str(key)
    with command(tmp_path / "data", *arguments, DATABASE_URL=database_url) as served:
        asked = ask(served.url)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")
    served.ended()
    assert not [line for line in served.lines if line.get("logger") == "asyncio"], "asking is told as an error"


async def test_a_server_that_is_not_ready_lives_still(database_url: str, tmp_path: Path) -> None:
    full = running(database_url, tmp_path, journal_max_bytes=0)
    async with full as proxy, ClientSession() as session:
        async with session.get(f"{proxy.url}/health/readiness") as answer:
            assert answer.status == 503
        assert await asyncio.to_thread(trouble, proxy.settings.host, int(proxy.url.rpartition(":")[2])) is None


def test_where_nobody_listens_is_one_line_and_exit_code_one() -> None:
    with socket.socket() as taken:  # bound, so that nobody else listens there meanwhile
        taken.bind(("127.0.0.1", 0))
        asked = ask(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert asked.returncode == 1
    assert asked.stderr.startswith("passthrough: Nobody answers at 127.0.0.1 on port ")
    assert asked.stderr.count("\n") == 1


def test_a_server_that_hangs_is_not_waited_for() -> None:
    with listening("127.0.0.1") as url:
        asked = ask(url)
    assert asked.returncode == 1
    assert "timed out" in asked.stderr


def test_settings_that_cannot_work_are_one_line() -> None:
    asked = ask("http://127.0.0.1:70000")
    assert asked.returncode == 1
    assert asked.stderr == "passthrough: PASSTHROUGH_PORT takes a number from 0 to 65535; correct it or leave it out.\n"
