"""Worker processes: started together, replaced when they die, ended together.

No event loop and no thread runs in the parent, so it may fork at any time. A child learns that its parent has
died from a pipe that nobody writes to: it comes to its end.

systemd and the init of a container send SIGTERM to every process of a group, a terminal SIGINT, and whatever started
the program may pass on what it was sent: one wish to stop arrives several times. So a second one is what comes
`ECHO_SECONDS` after the first, and the parent alone tells the children of it, by a signal that nobody else sends.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from passthrough.errors import UserError, alone

_log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1  # before a dead worker is replaced; doubled while they keep dying
LONGEST_PAUSE_SECONDS = 10.0
STABLE_SECONDS = 30.0  # a worker that lived this long starts the pauses anew
ECHO_SECONDS = 1.0  # more than several senders of one signal are apart, less than a person waits to insist
END_NOW = signal.SIGUSR1
# A terminal that is closed sends SIGHUP, unless `nohup` had it ignored.
_HUNG_UP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
STOPPING = (signal.SIGTERM, signal.SIGINT, *_HUNG_UP)
_WATCHED = frozenset({*STOPPING, signal.SIGCHLD})


@dataclass(slots=True)
class _Child:
    name: str
    run: Callable[[int], None]
    serves_others: bool
    pid: int = 0
    born: float = 0.0
    deaths: int = 0
    due: float = 0.0  # when to start it again


class Supervisor:
    """Keeps children alive until it is told to stop, then stops them together.

    A child's `run` is given a file descriptor that reads as closed once the parent is gone. SIGTERM asks it to come to
    its end, however often it is sent, and `END_NOW` to do so at once.
    """

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._life, self._hold = os.pipe()
        self._stopping = False
        self._asked_at = 0.0  # to stop

    def add(self, name: str, run: Callable[[int], None], *, serves_others: bool = False) -> None:
        """`serves_others`: it ends after those that need it, by `END_NOW` alone."""
        self._children.append(_Child(name, run, serves_others))

    def run(self, *, at_stop: Callable[[], None] = lambda: None) -> None:
        """Start all; return when all have ended after one of `STOPPING`. `at_stop` is called when that comes."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        for child in self._children:
            self._start(child)
        while not self._stopping or any(child.pid for child in self._children):
            received = signal.sigtimedwait(_WATCHED, self._pause())
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._asked_to_stop()
                at_stop()
            self._reap()
            if self._stopping and not any(child.pid for child in self._children if not child.serves_others):
                self._tell(END_NOW, lambda child: child.serves_others)
            for child in self._children:
                if not child.pid and not self._stopping and child.due <= time.monotonic():
                    self._start(child)

    def _asked_to_stop(self) -> None:
        now = time.monotonic()
        if not self._stopping:
            self._stopping, self._asked_at = True, now
            self._tell(signal.SIGTERM, lambda child: not child.serves_others)
        elif now - self._asked_at >= ECHO_SECONDS:
            self._tell(END_NOW, lambda child: not child.serves_others)

    def _pause(self) -> float:
        due = [child.due for child in self._children if not child.pid]
        if self._stopping or not due:
            return 3600.0  # a signal comes before
        return max(0.0, min(due) - time.monotonic())

    def _tell(self, number: int, wanted: Callable[[_Child], bool]) -> None:
        for child in self._children:
            if child.pid and wanted(child):
                os.kill(child.pid, number)

    def _start(self, child: _Child) -> None:
        child.born = time.monotonic()
        child.pid = os.fork()
        if child.pid:
            return
        status = 1
        try:
            os.close(self._hold)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            child.run(self._life)
            status = 0
        except BaseException as error:  # noqa: BLE001  # nothing may return into the parent's code from here
            if isinstance(mistake := alone(error), UserError):
                _log.error("%s failed", child.name, extra={"cause": str(mistake)})
            else:
                _log.exception("%s failed", child.name)
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        for child in self._children:
            if child.pid:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._bury(child, status)

    def _bury(self, child: _Child, status: int) -> None:
        child.pid = 0
        if self._stopping:
            return
        now = time.monotonic()
        child.deaths = 1 if now - child.born > STABLE_SECONDS else child.deaths + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (child.deaths - 1))
        child.due = now + pause
        _log.error(
            "%s died and is replaced",
            child.name,
            extra={"exit": os.waitstatus_to_exitcode(status), "deaths_in_a_row": child.deaths, "pause_seconds": pause},
        )
