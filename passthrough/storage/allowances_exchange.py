"""Wants to PostgreSQL and answers back: the one statement by which leases are asked for, reported and returned."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from passthrough.policy.allowance_leases import Account, Answer, Want
from passthrough.policy.allowances import MINUTE_SECONDS, Limit, window
from passthrough.storage.allowances_desk import ALIVE_SECONDS, Desk
from passthrough.storage.allowances_opening import open_budgets

_LEASE: Final = (
    "SELECT place, state, allowance, number, epoch, granted, used, held, lost, ends_at, moment, others "
    "FROM passthrough_lease($1, $2::jsonb, make_interval(secs => $3))"
)


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Answers by account; `again` holds those to whom PostgreSQL could not say anything yet: ask once more."""

    answers: dict[Account, Answer]
    again: tuple[Account, ...]
    sent_at: float


class Exchange:
    """Asks in one round trip. `wall` gives seconds since 1970, `monotonic` seconds that never step back."""

    def __init__(self, desk: Desk, holder: str, *, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._desk = desk
        self._holder = holder
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = 0.0  # seconds by which PostgreSQL's clock is ahead of ours: windows go by its clock alone

    def now(self) -> float:
        """Tell PostgreSQL's time, as far as we know."""
        return self._wall() + self._ahead

    async def __call__(self, wants: Sequence[Want], answering: dict[Account, str]) -> Exchanged:
        """Ask for all of `wants`; `answering` names the questions that what is given back answers."""
        wants = sorted(wants, key=lambda want: want.account.key)  # the order in which rows are locked
        sent_at = self._monotonic()
        asked = [self._object(place, want, answering) for place, want in enumerate(wants)]
        rows = await self._desk.fetch(_LEASE, self._holder, json.dumps(asked), ALIVE_SECONDS)
        answers, again, new = {}, [], []
        for row in rows:
            account = wants[row["place"]].account
            self._ahead = row["moment"] - self._wall()
            if row["state"] == "ok":
                answers[account] = _answer(row)
            else:
                again.append(account)
                if row["state"] == "new":
                    new.append((account.limit, account.most))
        if new:
            await self._open(new)
        return Exchanged(answers, tuple(again), sent_at)

    async def _open(self, limits: Sequence[tuple[Limit, int]]) -> None:
        now = self.now()
        await self._desk.use(lambda connection: open_budgets(connection, limits, now))

    def _object(self, place: int, want: Want, answering: dict[Account, str]) -> dict[str, Any]:
        limit = want.account.limit
        span = start = end = None
        if limit.anchored:
            span = MINUTE_SECONDS
        else:
            starts, ends = window(datetime.fromtimestamp(self.now(), UTC), limit.period)
            start, end = starts.timestamp(), ends.timestamp() if ends else None
        return {
            "place": place,
            "subject": limit.subject,
            "name": limit.name,
            "kind": int(limit.kind),
            "period": limit.period,
            "model": limit.model,
            "most": want.account.most,
            "soft": limit.soft,
            "span": span,
            "starts": start,
            "ends": end,
            "number": want.number,
            "epoch": want.epoch,
            "taken": want.taken,
            "settled": want.settled,
            "back": want.back,
            "need": want.need,
            "total": want.total,
            "extra": want.extra,
            "ask": want.ask,
            "answer": answering.get(want.account, ""),
            "close": want.close,
        }


def _answer(row: Any) -> Answer:  # a row of passthrough_lease
    ends_at = row["ends_at"]
    return Answer(
        allowance=row["allowance"],
        number=row["number"] or 0,
        epoch=row["epoch"],
        granted=int(row["granted"]),
        used=_up(row["used"]),
        held=int(row["held"]),
        lost=_up(row["lost"]),
        seconds_left=None if ends_at is None else ends_at - row["moment"],
        ends_at=ends_at,
        others=tuple(row["others"] or ()),
    )


def _up(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING))
