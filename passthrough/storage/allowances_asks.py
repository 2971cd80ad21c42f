"""Questions to the other holders: "I need some of this, give back what you do not".

One question per allowance and worker at a time, and a moment's rest after each, so that a crowd of calls at a limit
does not become a crowd of questions. Calls that come while a question is open wait for the next one: what was free
before they came says nothing about them.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from passthrough.policy.allowance_holds import Hold, Needs
from passthrough.policy.allowance_leases import Account

_ANSWER_SECONDS: Final = 0.3  # a worker's loop is free within some ms; whoever is slower may be dead
_PATIENCE_SECONDS: Final = 2.0  # more for the living: on a crowded machine a call had better wait than be refused
_REST_SECONDS: Final = 0.02  # 50 questions a second and worker for one allowance, at most
_SUSPECT_SECONDS: Final = 5.0  # who did not answer is not waited for so long


class Waiter:
    """A call that waits. `asked` are the accounts of which all holders were asked since it came."""

    __slots__ = ("accounts", "asked", "future", "needs", "spared")

    def __init__(self, accounts: Sequence[Account], needs: Needs, future: "asyncio.Future[Hold]") -> None:
        self.accounts = accounts
        self.needs = needs
        self.future = future
        self.asked: set[Account] = set()
        self.spared: set[Account] = set()  # shadow limits that would have refused it

    def lacking(self, now: float) -> Account | None:
        """Return the first account that has too little for it."""
        for account in self.accounts:
            need = self.needs[account.kind]
            lease = account.lease
            if need and account not in self.spared and (lease.free < need or lease.until <= now):
                return account
        return None


class Ask:
    """An open question. `waiters` came before it was asked, `later` after."""

    __slots__ = ("account", "begun", "heard", "later", "question", "waiters", "waiting")

    def __init__(self, account: Account, question: str) -> None:
        self.account = account
        self.question = question
        self.begun = False
        self.heard: set[str] = set()
        self.waiting: set[str] = set()
        self.waiters: list[Waiter] = []
        self.later: list[Waiter] = []


class Asks:
    """A worker's questions, and what it owes to those of others.

    `ended` is called with each that is over, `silent` when holders do not answer: it names those who are dead, and
    what they held has come back.
    """

    def __init__(
        self, holder: str, *, ended: Callable[[Ask], None], silent: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        self._holder = holder
        self._ended = ended
        self._silent = silent
        self._numbers = itertools.count(1)
        self._open: dict[Account, Ask] = {}
        self._by_question: dict[str, Ask] = {}
        self._resting: dict[Account, list[Waiter]] = {}
        self._suspects: dict[str, float] = {}
        self._owed: dict[Account, list[str]] = {}
        self._words: list[str] = []
        self.tasks: asyncio.TaskGroup | None = None

    @property
    def owing(self) -> bool:
        return bool(self._owed or self._words)

    def question(self, account: Account) -> str:
        """Name a new question about an account; '' while one is open, or was just now."""
        if account in self._open or account in self._resting:
            return ""
        ask = Ask(account, f"{self._holder}/{next(self._numbers)}")
        self._open[account] = self._by_question[ask.question] = ask
        return ask.question

    def begin(self, account: Account, question: str, others: Sequence[str]) -> None:
        """Say who was asked; if nobody was, there is no question."""
        ask = self._by_question.get(question)
        if ask is None:
            return
        now = time.monotonic()
        ask.waiting = {other for other in others if self._suspects.get(other, 0.0) <= now} - ask.heard
        if not ask.waiting and not ask.heard:
            del self._open[account], self._by_question[question]
            return
        ask.begun = True
        loop = asyncio.get_running_loop()
        if ask.waiting:
            loop.call_later(_ANSWER_SECONDS, self._late, ask)
        else:
            loop.call_soon(self._end, ask)

    def pending(self, account: Account) -> bool:
        return account in self._open

    def join(self, account: Account, waiter: Waiter, *, begun: bool) -> None:
        """Let a call wait: for the answers, if it was there when the question was asked, or else for the next one."""
        if account in self._open:
            ask = self._open[account]
            (ask.waiters if begun else ask.later).append(waiter)
        elif account in self._resting:
            self._resting[account].append(waiter)
        else:
            self._ended(_again(account, [waiter]))

    def answered(self, question: str, holder: str) -> None:
        """Hear an answer; what was given back is in PostgreSQL by now."""
        self._suspects.pop(holder, None)
        ask = self._by_question.get(question)
        if ask is not None:
            ask.heard.add(holder)
            ask.waiting.discard(holder)
            if ask.begun and not ask.waiting:
                self._end(ask)

    def abandon(self) -> None:
        """End all questions, our own and those of others: nobody can ask or answer."""
        self._owed.clear()
        self._words.clear()
        for ask in list(self._open.values()):
            self._end(ask)

    def owe(self, account: Account, question: str) -> None:
        """Note that another worker's question is to be answered by giving back."""
        self._owed.setdefault(account, []).append(question)

    def say_nothing_left(self, allowance: int, question: str) -> None:
        self._words.append(f"have {allowance} {question} {self._holder} 0")

    def take_owed(self, uncertain: set[Account]) -> tuple[dict[Account, list[str]], list[str]]:
        """Return the questions to answer by giving back, and the answers that need no more than words.

        Those about `uncertain` accounts wait: first it has to be known what there is to give.
        """
        owed = {account: questions for account, questions in self._owed.items() if account not in uncertain}
        self._owed = {account: questions for account, questions in self._owed.items() if account in uncertain}
        words, self._words = self._words, []
        return owed, words

    def postponed(self) -> set[Account]:
        """Return the accounts about which questions still wait."""
        return set(self._owed)

    def _late(self, ask: Ask) -> None:
        if ask.question in self._by_question and self.tasks is not None:
            self.tasks.create_task(self._without(ask))

    async def _without(self, ask: Ask) -> None:
        """Go on without those who are dead, and for a while wait for the others who do not answer."""
        ask.waiting.difference_update(await self._silent())
        if not ask.waiting:
            self._end(ask)
        else:
            asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._give_up, ask)

    def _give_up(self, ask: Ask) -> None:
        if ask.question not in self._by_question:
            return
        now = time.monotonic()
        self._suspects = {holder: until for holder, until in self._suspects.items() if until > now}
        self._suspects |= dict.fromkeys(ask.waiting, now + _SUSPECT_SECONDS)
        self._end(ask)

    def _end(self, ask: Ask) -> None:
        if self._by_question.pop(ask.question, None) is None:
            return
        del self._open[ask.account]
        self._resting[ask.account] = ask.later
        ask.later = []
        asyncio.get_running_loop().call_later(_REST_SECONDS, self._rested, ask.account)
        self._ended(ask)

    def _rested(self, account: Account) -> None:
        waiters = self._resting.pop(account, [])
        if waiters:
            self._ended(_again(account, waiters))


def _again(account: Account, waiters: list[Waiter]) -> Ask:
    """Make as if a question had ended that came before these calls: they have one of their own to ask."""
    ask = Ask(account, "")
    ask.later = waiters
    return ask
