"""The PostgreSQL of a data directory: one owner, an end in order, and a life after a killed owner."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from passthrough.errors import UserError
from passthrough.storage.embedded import attached, embedded

OPTIONS = ("fsync=off",)
OWN_AND_WAIT = """
import sys, time
from pathlib import Path
from passthrough.storage.embedded import embedded
with embedded(Path(sys.argv[1]), options=["fsync=off"]) as url:
    print(url, flush=True)
    time.sleep(60)
"""


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
    command = [sys.executable, "-c", OWN_AND_WAIT, made]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:  # noqa: S603  # our own words
        assert owner.stdout is not None
        left = owner.stdout.readline().strip()
        owner.send_signal(signal.SIGKILL)
    assert ask(left, "SELECT 1") == 1
    with embedded(made) as url:
        assert url == left
    with pytest.raises((ConnectionError, FileNotFoundError)):
        ask(left, "SELECT 1")


def test_a_path_too_long_for_a_socket_gets_one_elsewhere_which_is_tidied_away(made: Path) -> None:
    long = made / ("x" * 100)
    shutil.copytree(made / "postgres", long / "postgres")
    if os.geteuid() == 0:
        owner = (made / "postgres").stat()
        for folder, folders, files in os.walk(long / "postgres"):
            for name in ("", *folders, *files):
                os.chown(Path(folder, name), owner.st_uid, owner.st_gid)
    with embedded(long, options=OPTIONS) as url:
        assert ask(url, "SELECT 1") == 1
        socket_folder = Path(str(ask(url, "SHOW unix_socket_directories")))
        assert socket_folder.parent != long
    assert not socket_folder.exists()


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
