"""Tells of thresholds that were crossed: each is a row, written in the transaction that crossed it.

One worker of all takes a row and logs it; a webhook gets it until it has accepted it once. A webhook that is down costs
calls nothing: nobody waits for it but this task.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from passthrough.errors import Unavailable
from passthrough.policy.allowance_events import Event
from passthrough.policy.allowances import Kind
from passthrough.storage.allowances_desk import Desk

_log = logging.getLogger(__name__)

Send = Callable[[Event], Awaitable[bool]]
"""Delivers an event; False if it has to be tried again. Raises nothing that is the receiver's fault."""

_LOOK_SECONDS: Final = 15.0  # for retries; new ones are heard of
_MOST_REMEMBERED: Final = 10_000  # windows; asking again is harmless
_MOST_TRIES: Final = 16  # with the pauses below, about a day and a half
_COLUMNS: Final = (
    "id, at, subject, name, kind, period, model, threshold, used, most, ends_at, tries, "
    "(SELECT k.key_alias FROM keys k WHERE subject = 'key' AND k.key_id = name) AS key_alias"
)
_TELL: Final = f"""
UPDATE allowance_events SET told_at = now(), done_at = CASE WHEN $1 THEN NULL ELSE now() END WHERE id IN (
    SELECT id FROM allowance_events WHERE done_at IS NULL AND told_at IS NULL ORDER BY id LIMIT 50
    FOR UPDATE SKIP LOCKED
) RETURNING {_COLUMNS}
"""  # noqa: S608  # our own names
# A row is taken by putting off its next attempt: who takes it and dies has not lost it.
_TAKE: Final = f"""
UPDATE allowance_events SET tries = tries + 1, due_at = now() + make_interval(secs => 15 * 2 ^ least(tries, 10))
WHERE id IN (
    SELECT id FROM allowance_events WHERE done_at IS NULL AND due_at <= now() ORDER BY due_at LIMIT 1
    FOR UPDATE SKIP LOCKED
) RETURNING {_COLUMNS}
"""  # noqa: S608  # our own names
_DONE: Final = "UPDATE allowance_events SET done_at = now() WHERE id = $1"
_PRUNE: Final = "DELETE FROM allowance_events WHERE done_at < now() - interval '90 days'"
# Calls are refused with a little left, for they may cost more than that: then all is used that can be.
_EXHAUSTED: Final = """
WITH first AS (
    UPDATE allowances SET warned = warned | 8
    WHERE id = $1 AND epoch = $2 AND warned & 8 = 0 AND (kind = 3 OR period = '1d') AND soft IS DISTINCT FROM most
    AND used + lost >= most * 0.9
    RETURNING *
), told AS (
    INSERT INTO allowance_events (subject, name, kind, period, model, threshold, used, most, ends_at)
    SELECT subject, name, kind, period, model, '100', used, most, ends_at FROM first RETURNING id
)
SELECT count(*) AS told FROM told
"""


class Counter(Protocol):
    """Counts crossings."""

    def limit_crossed(self, threshold: str) -> None: ...


class Events:
    """Tells. `send` is None where no webhook is configured."""

    def __init__(self, desk: Desk, counter: Counter, send: Send | None) -> None:
        self._desk = desk
        self._counter = counter
        self._send = send
        self._wake = asyncio.Event()
        self._exhausted: list[tuple[int, int]] = []
        self._asked_at: dict[tuple[int, int], float] = {}

    def heard(self) -> None:
        """There is something to tell."""
        self._wake.set()

    def exhausted(self, allowance: int, epoch: int) -> None:
        """Calls are refused because of this allowance, for the rest of its window."""
        window, now = (allowance, epoch), asyncio.get_running_loop().time()
        if now - self._asked_at.get(window, -_LOOK_SECONDS) >= _LOOK_SECONDS:
            if len(self._asked_at) >= _MOST_REMEMBERED:
                self._asked_at.clear()
            self._asked_at[window] = now
            self._exhausted.append(window)
            self._wake.set()

    async def run(self) -> None:
        """Tell whatever there is; the owner cancels it."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._look()
            except Unavailable:
                self._wake.set()
                await asyncio.sleep(1.0)

    async def _look(self) -> None:
        while self._exhausted:
            await self._desk.fetch(_EXHAUSTED, *self._exhausted[0])
            del self._exhausted[0]
        rows = await self._desk.fetch(_TELL, self._send is not None)
        for row in rows:
            event = _event(row)
            self._counter.limit_crossed(event.threshold)
            _log.warning("a budget's threshold was crossed", extra=_logged(event))
        if rows:
            await self._desk.fetch(_PRUNE)
        if self._send is not None:
            # one by one: what waits behind a slow receiver is not put off, and another worker may deliver it
            while taken := await self._desk.fetch(_TAKE):
                await self._deliver(taken[0], self._send)
                if self._wake.is_set():
                    break  # what is new is logged first, and then this goes on

    async def _deliver(self, row: Any, send: Send) -> None:  # a row of _TAKE
        event = _event(row)
        accepted = await send(event)
        if not accepted and row["tries"] < _MOST_TRIES:
            return
        if not accepted:
            _log.error("a webhook never accepted an event", extra=_logged(event))
        await self._desk.fetch(_DONE, row["id"])


def _logged(event: Event) -> dict[str, Any]:
    # `name` is the logger's own
    return {("subject_name" if field == "name" else field): value for field, value in event.fields().items()}


def _event(row: Any) -> Event:
    return Event(
        number=row["id"],
        at=row["at"],
        subject=row["subject"],
        name=row["name"],
        kind=Kind(row["kind"]),
        period=row["period"],
        model=row["model"],
        threshold=row["threshold"],
        used=row["used"],
        most=row["most"],
        ends_at=row["ends_at"],
        key_alias=row["key_alias"],
    )
