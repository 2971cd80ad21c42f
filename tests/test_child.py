"""What is done in a process of its own ends like a call of it, however that process ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from passthrough.child import in_a_child
from passthrough.errors import UserError

SLOW = """
import fcntl, os, sys, time
from passthrough.child import in_a_child

lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)

def do(_):
    sys.stdout.write("begun\\n")
    sys.stdout.flush()
    time.sleep(float(sys.argv[2]))

in_a_child(do, "")
"""


def begun(path: Path, seconds: float) -> "subprocess.Popen[str]":
    program = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-c", SLOW, path, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    return program


def test_it_has_ended_when_the_call_returns(tmp_path: Path) -> None:
    in_a_child(lambda folder: Path(folder, str(os.getpid())).touch(), str(tmp_path))
    (made,) = tmp_path.iterdir()
    assert made.name != str(os.getpid())
    with pytest.raises(ProcessLookupError):
        os.kill(int(made.name), 0)


def test_a_mistake_of_the_user_is_raised_as_one() -> None:
    def do(url: str) -> None:
        raise UserError(f"Write {url} in another way.")

    with pytest.raises(UserError, match="Write it in another way"):
        in_a_child(do, "it")


def test_that_it_was_killed_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError, match="was ended by SIGKILL"):
        in_a_child(lambda _: os.kill(os.getpid(), signal.SIGKILL), "")


def test_a_fault_of_ours_is_told_where_it_happened(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="failed"):
        in_a_child(int, "a")
    assert "ValueError" in capfd.readouterr().err


def test_whoever_is_killed_meanwhile_leaves_nobody_who_holds_its_locks(tmp_path: Path) -> None:
    program = begun(tmp_path / "lock", 0.5)
    program.terminate()
    program.communicate(timeout=40)  # its pipes are closed when all that inherited them have ended
    assert program.returncode == -signal.SIGTERM


def test_an_interrupt_ends_both_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    program = begun(tmp_path / "lock", 60)
    since = time.monotonic()
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    _, told = program.communicate(timeout=40)
    assert time.monotonic() - since < 30
    assert told.count("Traceback") == 1  # of the program of this test, which does not catch it
