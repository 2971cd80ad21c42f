"""Under whose name calls go to AWS: credentials that are always at hand and never waited for.

botocore's chain (environment, profiles, assumed roles, web identity, SSO, login, processes, containers,
instance metadata) reads files and talks to services, and all of it blocks. So each look-up runs in a thread
of its own, one at a time, ahead of the expiry, and a call only ever reads the result of the last one.

Every look-up is made by a new botocore session: what a session has read from files and services it keeps for
good, and credentials that appear or change on disk must be found. Only `_expiry_time` is not public there;
tests/architecture pins it and the behaviour relied on.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from botocore.session import Session

from passthrough.errors import Unavailable
from passthrough.policy.credentials import Credentials

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
# At DEBUG botocore logs what STS answers, secret keys included; its warning of a failed refresh has a traceback that
# quotes what a credential process printed. We log the same failure without either.
logging.getLogger("botocore").setLevel(logging.INFO)
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)

_ANSWER = "The proxy cannot sign calls to AWS at the moment; try again, and tell its administrator if this lasts."
_NONE_FOUND = (
    "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with AWS_PROFILE, "
    "or give the machine or container a role"
)
# Sources that other programs rewrite and that say nothing of an expiry (botocore's names of its providers).
_FILES = frozenset({"shared-credentials-file", "config-file"})
# botocore puts off the expiry of instance credentials that have less left than its window of 15 minutes and
# 2 to 10 of jitter (InstanceMetadataFetcher._evaluate_expiration): nearer than that it is no longer AWS's word.
_INSTANCE, _EXPIRY_IN_DOUBT_SECONDS = "iam-role", 30 * 60.0
# Secret keys are 40 characters of base64, session tokens and API keys more; `eyJ` begins every JSON web token.
_SECRET = re.compile(r"eyJ[\w.-]{10,}|[A-Za-z0-9+/=]{40,}")
_LONGEST_CAUSE = 400  # characters: a line of a log


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When credentials are looked up, in seconds.

    `start` bounds the wait at a start: metadata services answer in milliseconds. `lead` is botocore's own
    advisory window. `recheck` is for where something newer may turn up at any time: EC2 has it at least five
    minutes before the expiry. Retries double from `first_retry` to `longest_retry`.
    """

    start: float = 3.0
    lead: float = 15 * 60.0
    recheck: float = 60.0
    first_retry: float = 1.0
    longest_retry: float = 30.0

    def retry(self, failures: int) -> float:
        return min(self.longest_retry, self.first_retry * 2.0 ** min(failures - 1, 16)) * _jitter()

    def next_look(self, found: "Found", before: "Found | None", now: float) -> float:
        """Give the time at which to look again."""
        if found.expires_at == math.inf:
            return now + self.recheck if found.source in _FILES else math.inf
        left = found.expires_at - now
        nothing_newer = before is not None and before.credentials == found.credentials
        in_doubt = found.source == _INSTANCE and left < _EXPIRY_IN_DOUBT_SECONDS
        at = found.expires_at - min(self.lead, left / 2) * _jitter()
        if nothing_newer or in_doubt:
            at = now + min(self.recheck, left / 2)
        return max(at, now + self.first_retry)


@dataclass(frozen=True, slots=True)
class Found:
    """What one look-up gave: `expires_at` in epoch seconds (`inf`: never), `source` is botocore's name for it."""

    credentials: Credentials
    expires_at: float
    source: str
    region: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an administrator may see of an identity: nothing here is secret.

    `source` is botocore's name of the provider that gave the credentials, `access_key` ends like theirs,
    `expires_at` is in epoch seconds (None: never, or no credentials), `region` the one in botocore's own
    configuration, `trouble` what went wrong at the last look-up.
    """

    identity: str
    source: str | None
    access_key: str | None
    expires_at: float | None
    region: str | None
    bearer: bool
    trouble: str | None


class Identity:
    """One AWS identity, `async with` from start to end: its look-ups run while it is entered.

    `profile` names a profile instead of AWS's own variables, `region` is for STS where botocore's configuration
    has none, `bearer` is a Bedrock API key. Entering waits for the first look-up, at most `pace.start` seconds.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        profile: str | None = None,
        region: str | None = None,
        bearer: str | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.bearer = bearer or None
        self._look_up = partial(_look_up, profile, region)
        self._pace = pace or Pace()
        self._clock = clock
        self._found: Found | None = None
        self._trouble: str | None = "the first look-up of AWS credentials has not ended yet"
        self._looked = asyncio.Event()
        self._wake = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._keeper = self._tasks.create_task(self._keep(), name=f"identity-{self.name}")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.start):
                    await self._looked.wait()
        except BaseException:  # a start that is cancelled is not exited by anybody else
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.cancel()
        await self._tasks.__aexit__(None, None, None)

    def __repr__(self) -> str:
        return f"<Identity {self.name}>"

    def current(self) -> Credentials:
        """Give the credentials to sign with now. Never blocks; raises `Unavailable` when there are none that hold."""
        found = self._found
        if found is None:
            raise Unavailable(_ANSWER, cause=f"identity {self.name}: {self._trouble}")
        if self._clock() >= found.expires_at:
            # A machine that slept has timers that are late: the first call after it wakes the keeper.
            self._wake.set()
            why = self._trouble or "a new look-up has begun"
            raise Unavailable(_ANSWER, cause=f"identity {self.name}: the AWS credentials have expired; {why}")
        return found.credentials

    async def describe(self) -> Description:
        """Say where the credentials come from. Waits for the first look-up to end: bound it with a timeout."""
        await self._looked.wait()
        found = self._found
        return Description(
            identity=self.name,
            source=found.source if found else None,
            access_key=f"…{found.credentials.access_key[-4:]}" if found else None,
            expires_at=found.expires_at if found and found.expires_at != math.inf else None,
            region=found.region if found else None,
            bearer=self.bearer is not None,
            trouble=self._trouble,
        )

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                found = await self._look()
            except Exception as error:  # noqa: BLE001  # the chain runs users' programs and reads users' files
                failures += 1
                pause = self._pace.retry(failures)
                self._note_trouble(_cause(error), pause)
                self._looked.set()
                await asyncio.sleep(pause)
                continue
            failures = 0
            next_look = self._pace.next_look(found, self._found, self._clock())
            self._take(found)
            self._looked.set()
            await self._rest(next_look)

    async def _look(self) -> Found:
        found = await _off_the_loop(self._look_up, name=f"identity-{self.name}")
        if found.expires_at <= self._clock():
            raise _UnusableError(f"the AWS credentials that {found.source} gives have expired; renew them")
        return found

    def _take(self, found: Found) -> None:
        before, self._found = self._found, found
        was_in_trouble, self._trouble = self._trouble is not None, None
        if was_in_trouble or before is None or before.credentials != found.credentials:
            ends = found.expires_at
            until = "replaced" if ends == math.inf else datetime.fromtimestamp(ends, UTC).isoformat(timespec="seconds")
            _log.info("identity %s: AWS credentials from %s, valid until %s", self.name, found.source, until)

    def _note_trouble(self, trouble: str, pause: float) -> None:
        # The same trouble again every half minute would bury what else the log has to say.
        level = logging.DEBUG if trouble == self._trouble else logging.WARNING
        self._trouble = trouble
        _log.log(level, "identity %s: %s (looking again in %.1f s)", self.name, trouble, pause)

    async def _rest(self, until: float) -> None:
        self._wake.clear()
        # In short steps by the wall clock: the loop's own clock stands still while a machine sleeps.
        while not self._wake.is_set() and (left := until - self._clock()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, self._pace.recheck)):
                    await self._wake.wait()


class FixedIdentity:
    """An identity whose credentials are known and never change: the sandbox's."""

    def __init__(self, name: str, credentials: Credentials, *, bearer: str | None = None) -> None:
        self.name = name
        self.bearer = bearer or None
        self._credentials = credentials

    def __repr__(self) -> str:
        return f"<FixedIdentity {self.name}>"

    def current(self) -> Credentials:
        return self._credentials


class _UnusableError(Exception):
    """The chain worked and gave nothing that can be used; the text says what to do."""


def _look_up(profile: str | None, region: str | None) -> Found:
    """Run botocore's whole chain once. Blocks, for minutes where a service is slow."""
    session = Session(profile=profile)
    configured = session.get_config_variable("region")
    if configured is None and region is not None:
        session.set_config_variable("region", region)  # botocore knows AWS_DEFAULT_REGION alone, and STS needs one
    held = session.get_credentials()
    if held is None:
        raise _UnusableError(_NONE_FOUND)
    frozen = held.get_frozen_credentials()
    fields = f"{frozen.access_key}{frozen.token or ''}"  # they go up in headers, whose lines they must not end
    if not frozen.access_key or not frozen.secret_key or not fields.isprintable():
        raise _UnusableError(f"the AWS credentials that {held.method} gives are incomplete or hold a line end")
    expiry: datetime | None = getattr(held, "_expiry_time", None)
    return Found(
        Credentials(frozen.access_key, frozen.secret_key, frozen.token or None),
        math.inf if expiry is None else expiry.timestamp(),
        held.method,
        configured,
    )


async def _off_the_loop(work: Callable[[], _T], *, name: str) -> _T:
    """Run what blocks in a daemon thread: an executor's would keep a process from ending until it answers."""
    result: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        if result.set_running_or_notify_cancel():
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001  # it is raised again where the result is awaited
                result.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(result)


def _cause(error: Exception) -> str:
    """Say what went wrong, in one line without secrets: an error may quote what a program or service printed."""
    text = str(error) if isinstance(error, _UnusableError) else f"{type(error).__name__}: {error}"
    return _SECRET.sub("[removed]", " ".join(text.split()))[:_LONGEST_CAUSE]


def _jitter() -> float:
    return random.uniform(0.8, 1.0)  # noqa: S311  # spreads replicas apart, decides nothing
