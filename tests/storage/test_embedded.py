"""The PostgreSQL of a data directory: one owner, an end in order, and a life after a killed owner."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from passthrough.errors import UserError
from passthrough.storage.embedded import attached, embedded

OPTIONS = ("fsync=off",)
OWN_UNTIL_TOLD = """
import sys
from pathlib import Path
from passthrough.storage.embedded import embedded
with embedded(Path(sys.argv[1]), options=["fsync=off"], restarted=True) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory that a server made and left in order."""
    with tempfile.TemporaryDirectory(prefix="passthrough-") as folder:
        with embedded(Path(folder), options=OPTIONS):
            pass
        yield Path(folder)


def ask(url: str, question: str) -> object:
    async def answer() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    return asyncio.run(answer())


@contextmanager
def owner(data_dir: Path) -> "Iterator[subprocess.Popen[str]]":
    """A program that owns the server until its standard input ends; it writes the URL."""
    command = [sys.executable, "-c", OWN_UNTIL_TOLD, data_dir]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:  # noqa: S603  # our own words
        yield program


def url_of(program: "subprocess.Popen[str]") -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def first_process(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def eventually(url: str, question: str) -> object:
    """Its answer, once there is one: a server that another process starts cannot be awaited."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask(url, question)
        except (OSError, asyncpg.PostgresError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def long_copy(made: Path) -> Path:
    """The same data directory at a path that is too long for a socket."""
    long = made / ("x" * 100)
    shutil.copytree(made / "postgres", long / "postgres")
    if os.geteuid() == 0:
        owner = (made / "postgres").stat()
        for folder, folders, files in os.walk(long / "postgres"):
            for name in ("", *folders, *files):
                os.chown(Path(folder, name), owner.st_uid, owner.st_gid)
    return long


def test_it_keeps_what_was_written_and_is_gone_when_its_owner_leaves(made: Path) -> None:
    with embedded(made, options=OPTIONS) as url:
        ask(url, "CREATE TABLE kept AS SELECT 1")
    with pytest.raises((ConnectionError, FileNotFoundError)):
        ask(url, "SELECT 1")
    with embedded(made, options=OPTIONS) as url:
        assert ask(url, "SELECT count(*) FROM kept") == 1
        ask(url, "DROP TABLE kept")


def test_there_is_one_owner_and_a_visitor_uses_its_server(made: Path) -> None:
    with embedded(made, options=OPTIONS) as url:
        with pytest.raises(UserError, match="Another passthrough uses the data directory"), embedded(made):
            pass
        with attached(made) as visited:
            assert visited == url
        assert ask(url, "SELECT 1") == 1
    with attached(made) as url:
        assert ask(url, "SELECT 1") == 1


def test_a_server_that_outlived_its_killed_owner_is_adopted_and_stopped_in_the_end(made: Path) -> None:
    with owner(made) as program:
        left = url_of(program)
        program.send_signal(signal.SIGKILL)
        program.communicate()  # its output is closed when all have ended that it forked
    assert ask(left, "SELECT 1") == 1
    with embedded(made) as url:
        assert url == left
    with pytest.raises((ConnectionError, FileNotFoundError)):
        ask(left, "SELECT 1")


def test_a_server_that_dies_is_started_again_where_it_was_and_not_after_its_end(made: Path) -> None:
    long = long_copy(made)
    with owner(long) as program:
        url = url_of(program)
        ask(url, "CREATE TABLE kept AS SELECT 1")
        for _ in range(2):
            died = first_process(long)
            os.kill(died, signal.SIGKILL)
            assert eventually(url, "SELECT count(*) FROM kept") == 1
            assert first_process(long) != died
        with attached(long) as visited:
            assert visited == url
        os.kill(first_process(long), signal.SIGKILL)
        program.communicate("", PATIENCE_SECONDS)
        assert program.returncode == 0
    with pytest.raises((ConnectionError, FileNotFoundError)):
        ask(url, "SELECT 1")
    shutil.rmtree(long)


def test_whoever_visits_while_the_server_is_started_again_waits_for_it(made: Path) -> None:
    with owner(made) as program:
        url = url_of(program)
        os.kill(first_process(made), signal.SIGKILL)
        with attached(made) as visited:
            assert visited == url
            assert ask(url, "SELECT 1") == 1
        program.communicate("", PATIENCE_SECONDS)


def test_a_number_that_became_another_process_s_keeps_no_server_from_its_start(made: Path) -> None:
    folder = made / "postgres"
    as_it = folder.stat().st_uid if os.geteuid() == 0 else None  # it may ask whether it lives
    with embedded(made, options=OPTIONS) as url:
        socket_lock = next(folder.glob(".s.PGSQL.*.lock"))
        said, of_socket = (folder / "postmaster.pid").read_text(), socket_lock.read_text()
    with subprocess.Popen(["sleep", "60"], user=as_it) as other:  # noqa: S607  # any program
        for path, text in ((folder / "postmaster.pid", said), (socket_lock, of_socket)):
            path.write_text("\n".join([str(other.pid), *text.splitlines()[1:]]) + "\n")
            os.chown(path, folder.stat().st_uid, -1)
        with embedded(made, options=OPTIONS) as again:
            assert again == url
            assert ask(url, "SELECT 1") == 1
        other.kill()


def test_a_path_too_long_for_a_socket_gets_one_elsewhere_which_is_tidied_away(made: Path) -> None:
    long = long_copy(made)
    with embedded(long, options=OPTIONS) as url:
        assert ask(url, "SELECT 1") == 1
        socket_folder = Path(str(ask(url, "SHOW unix_socket_directories")))
        assert socket_folder.parent != long
    assert not socket_folder.exists()
    shutil.rmtree(long)


def test_a_directory_of_another_version_is_refused(made: Path) -> None:
    version = made / "postgres" / "PG_VERSION"
    version.write_text("16\n")
    try:
        with pytest.raises(UserError, match="made by another PostgreSQL than 18"), embedded(made):
            pass
    finally:
        version.write_text("18\n")


def test_a_server_that_does_not_start_is_one_sentence(made: Path) -> None:
    with pytest.raises(UserError, match=r"failed \(pg_ctl: .*\); set DATABASE_URL"), embedded(made, options=("no=1",)):
        pass


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be used \(Not a directory\)"), embedded(tmp_path / "file" / "data"):
        pass
