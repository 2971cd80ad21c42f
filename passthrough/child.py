"""Something done in a process of its own, which ends with it and takes along what only that needed of memory."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from passthrough.errors import UserError


def in_a_child(do: Callable[[str], object], subject: str) -> None:
    """Call `do` in a child and wait for its end. Raises its `UserError`, and one where it ends in another way.

    A child whose parent is killed ends with what it does: it inherits the lock of the data directory, and would keep
    it from the next parent for as long as it lived.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_told, args=(do, subject, theirs))
    child.start()
    theirs.close()
    mistake: str | None = None
    try:
        with suppress(EOFError):  # it ended without a word
            mistake = ours.recv()
    except BaseException:
        child.terminate()
        raise
    finally:
        child.join()
        ours.close()
    if mistake is not None:
        raise UserError(mistake)
    if child.exitcode:
        raise UserError(_end(child.exitcode))


def _told(do: Callable[[str], object], subject: str, tell: Connection) -> None:
    try:
        do(subject)
    except UserError as error:
        tell.send(str(error))
    except KeyboardInterrupt:  # a terminal interrupts both, and the parent says so
        sys.exit(1)


def _end(code: int) -> str:
    if code > 0:
        return "A process of ours failed, and has said above how: tell the maintainers."
    name = signal.Signals(-code).name
    return f"A process of ours was ended by {name}: start again, with more memory if it was the kernel that ended it."
