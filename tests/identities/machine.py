"""What the tests of identities share: a log that can be awaited, and credentials that are easy to tell apart."""

import asyncio
import contextlib
import logging
import stat
import sys
from pathlib import Path

import pytest

from passthrough.errors import Unavailable
from passthrough.identities import Identity, Pace
from passthrough.policy.credentials import Credentials
from tests.fakes.metadata import Keys

QUICK = Pace(start=10.0, recheck=0.01, first_retry=0.01, longest_retry=0.05)
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


class Log(logging.Handler):
    """Keeps every line of the program and of botocore, at DEBUG; `says` waits for one."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))  # with the traceback, if it has one
        with contextlib.suppress(RuntimeError):  # a look-up that nobody waits for may outlive the loop
            self._loop.call_soon_threadsafe(self._more.set)

    async def says(self, text: str) -> str:
        async with asyncio.timeout(20):
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                self._more.clear()
                await self._more.wait()


def credentials_of(keys: Keys) -> Credentials:
    return Credentials(keys.access_key, keys.secret_key, keys.token)


def refusal(identity: Identity) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        identity.current()
    assert caught.value.status == 503
    assert "credential" not in caught.value.message
    assert "AWS_" not in caught.value.message
    return caught.value


def process(home: Path, body: str) -> None:
    script = home / "process"
    script.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (home / "config").write_text(f"[default]\ncredential_process = {script}\n")
