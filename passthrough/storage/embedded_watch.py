"""A process beside us that starts a server again when it has died.

It is a process, because with one worker an event loop runs in ours, and with several nothing may but wait for
signals. It is forked before either begins, and ends with us: a pipe that it reads says so, and is closed when the
last process is gone that we forked after it, so that workers which drain without their parent keep their server.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from passthrough.errors import UserError

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # a look costs two small files; calls with limits wait at most this long for the restart to begin
# Between attempts: those before may fail because processes of the dead server still end, which takes as long as their
# query does.
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0


@contextmanager
def watched(lives: Callable[[], bool], start: Callable[[], object]) -> Iterator[None]:
    """Have `start` called in a process beside us whenever `lives` says no; `start` may raise `UserError`.

    At the end it is over when this returns: nothing is started any more. To be called where no thread runs.
    """
    life, hold = os.pipe()
    watcher = os.fork()
    if not watcher:
        os.close(hold)
        _watch_and_exit(life, lives, start)
    os.close(life)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody killed it
            os.write(hold, b".")  # closing it says nothing while a child of ours has it open
        os.close(hold)
        os.waitpid(watcher, 0)


def _watch_and_exit(life: int, lives: Callable[[], bool], start: Callable[[], object]) -> None:
    status = 1
    try:
        # Whoever sends them, a terminal or systemd, sends them to our parent as well, which says when it is over: the
        # last calls need the server. A function, and not SIG_IGN, which the server would inherit.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        _watch(life, lives, start)
        status = 0
    except BaseException:  # noqa: BLE001  # nothing may return into the parent's code from here
        _log.exception("the embedded PostgreSQL is not watched any more")
    finally:
        logging.shutdown()
        os._exit(status)


def _watch(life: int, lives: Callable[[], bool], start: Callable[[], object]) -> None:
    while not _over(life, _LOOK_SECONDS):
        if lives():
            continue
        since, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        _log.error("the embedded PostgreSQL died and is started again")
        while not lives() and not _over(life, 0):
            try:
                start()
            except (OSError, UserError) as error:
                _log.warning(
                    "the embedded PostgreSQL does not start yet", extra={"cause": str(error), "pause_seconds": pause}
                )
                if _over(life, pause):
                    return
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        if lives():
            _log.info("the embedded PostgreSQL runs again", extra={"seconds": round(time.monotonic() - since, 1)})


def _over(life: int, seconds: float) -> bool:
    return bool(select.select((life,), (), (), seconds)[0])
