"""Workers that call, crash and lose answers at random, against a ledger of what truly happened."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from passthrough.policy.allowance_holds import Hold, reserve
from passthrough.policy.allowance_leases import Account, Want
from passthrough.policy.allowances import PICODOLLARS, Kind, Limit
from passthrough.policy.ledger import Charge, Entry
from tests.policy.bank import Bank

ALIKE = st.integers(0, 3)


@dataclass(eq=False)
class Worker:
    """One process: its account, the figures of its book, its journal."""

    name: str
    account: Account
    skew: float
    cells: dict[int, list[int]] = field(default_factory=dict)  # lease number → its figure
    journal: list[tuple[Charge, int]] = field(default_factory=list)
    open: "list[OpenCall]" = field(default_factory=list)
    uncertain: bool = False  # whether an answer was lost


@dataclass(eq=False)
class OpenCall:
    """A call under way, and what it had reserved in which window."""

    hold: Hold
    bound: int
    epoch: int


class Allowance(RuleBasedStateMachine):
    """One allowance, several workers."""

    kind = Kind.TOKENS
    windowed = True
    born = 0

    @initialize(most=st.integers(0, 400), count=st.integers(2, 4))
    def begin(self, most: int, count: int) -> None:
        self.limit = Limit(subject="key", name="k", kind=self.kind, period="1m", most=most, field="tpm_limit")
        self.most = most
        self.bank = Bank(self.kind, windowed=self.windowed)
        self.time = 1000.0
        self.born = 0
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.spent: Counter[int] = Counter()  # by window: what calls that are over have used, or may have
        for _ in range(count):
            self.bear()

    def bear(self) -> None:
        self.born += 1
        self.workers.append(Worker(f"w{self.born}", Account(self.limit, self.most), skew=self.born * 1e4))

    def now(self, worker: Worker) -> float:
        return self.time + worker.skew

    def exchange(self, worker: Worker, want: Want, *, lost: bool = False, seconds: float = 0.0) -> bool:
        """Ask the bank; `lost`: it hears, and the worker does not hear it. `seconds` pass before the bank hears."""
        sent_at = self.now(worker)
        self.time += seconds
        answer = self.bank.lease(worker.name, want, self.time)
        worker.uncertain = lost
        if lost:
            return False
        account = worker.account
        former = account.lease.number
        ended = account.answered(want, answer, sent_at)
        if ended is not None:
            worker.cells.pop(former, None)
            ended.cells, ended.slot = [0], 0
        lease = account.lease
        if lease.number:
            figure = lease.reserved if self.kind == Kind.MONEY else lease.taken
            if lease.number not in worker.cells:
                worker.cells.pop(former, None)
                lease.cells, lease.slot = worker.cells.setdefault(lease.number, [figure]), 0
        return True

    def in_flight(self, epoch: int) -> int:
        return sum(call.bound for worker in self.workers for call in worker.open if call.epoch == epoch)

    @rule(who=ALIKE, bound=st.integers(1, 120), seconds=st.sampled_from([0.0, 0.001, 0.4]))
    def call(self, who: int, bound: int, seconds: float) -> None:
        """A call as `storage.allowances` makes it: at once, or after asking, or after all others were asked."""
        worker = self.workers[who % len(self.workers)]
        if self.kind in {Kind.REQUESTS, Kind.CONCURRENCY}:
            bound = 1
        needs = (bound,) * 4
        hold = reserve([worker.account], needs, self.now(worker))
        if hold is None:
            want = worker.account.want([bound], self.now(worker))
            want.ask = "q"
            self.exchange(worker, want, seconds=seconds)
            hold = reserve([worker.account], needs, self.now(worker))
        if hold is None:
            for other in self.workers:
                if other is not worker:
                    if other.uncertain:
                        self.exchange(other, other.account.want((), self.now(other)))
                    self.exchange(other, other.account.want((), self.now(other), giving=True))
            self.exchange(worker, worker.account.want([bound], self.now(worker)))
            hold = reserve([worker.account], needs, self.now(worker))
        if hold is None:
            self.refused(bound)
            return
        epoch = worker.account.lease.epoch
        worker.open.append(OpenCall(hold, bound, epoch))
        if self.windowed:
            assert self.time < self.bank.ends[epoch], "admitted to a window that is over"

    def refused(self, bound: int) -> None:
        """Never falsely under: what truly remains is less than was asked for."""
        epoch = self.bank.row.epoch
        if not self.dead:
            assert self.most - self.spent[epoch] - self.in_flight(epoch) < bound

    @precondition(lambda self: any(worker.open for worker in self.workers))
    @rule(who=ALIKE, which=st.integers(0, 99), share=st.integers(0, 100), fate=st.sampled_from("ssssru"))
    def end(self, who: int, which: int, share: int, fate: str) -> None:
        """A call ends: settled by a share of its bound, released, or with a usage that nobody knows."""
        busy = [worker for worker in self.workers if worker.open]
        worker = busy[who % len(busy)]
        call = worker.open.pop(which % len(worker.open))
        used = call.bound * share // 100
        entry = Entry(call_id="", started_at=0.0, status=200)
        if fate == "r":
            entry.outcome = "refused"
        elif fate == "s":
            entry.input_tokens, entry.cost = used, Decimal(used).scaleb(-PICODOLLARS)
        lease = call.hold._leases[0]
        before = len(entry.charges)
        call.hold.settle(entry)
        if fate != "r":
            known = {Kind.CONCURRENCY: 0, Kind.REQUESTS: 1}.get(self.kind, used if fate == "s" else call.bound)
            self.spent[lease.epoch] += known
            assert len(entry.charges) == before + (self.kind == Kind.MONEY and known > 0)
            worker.journal += [(charge, known) for charge in entry.charges]
        call.hold.written()
        call.hold.settle(entry)  # the second time nothing happens

    @rule(who=ALIKE)
    def ship(self, who: int) -> None:
        """A journal reaches the ledger, also one of a worker that is dead."""
        everybody = self.workers + self.dead
        worker = everybody[who % len(everybody)]
        for charge, cost in worker.journal:
            self.bank.settle(charge[1], charge[2], charge[3], cost, lost=charge[4])
        worker.journal.clear()

    @rule(who=ALIKE, giving=st.booleans(), lost=st.booleans(), close=st.booleans(), more=st.integers(0, 50))
    def talk(self, who: int, giving: bool, lost: bool, close: bool, more: int) -> None:  # noqa: FBT001  # hypothesis's arguments
        """Answers get lost, blocks are fetched ahead, leases returned and closed."""
        worker = self.workers[who % len(self.workers)]
        want = worker.account.want([more] if more else (), self.now(worker), giving=giving)
        want.close = close and giving and not worker.account.lease.reserved
        self.exchange(worker, want, lost=lost)

    @rule(seconds=st.sampled_from([0.5, 20.0, 59.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds

    @precondition(lambda self: len(self.dead) < 3)
    @rule(who=ALIKE)
    def crash(self, who: int) -> None:
        """kill -9: what was under way may have been used whole, and nobody will know."""
        worker = self.workers.pop(who % len(self.workers))
        for call in worker.open:
            if self.kind != Kind.CONCURRENCY:
                self.spent[call.epoch] += call.bound
        worker.open.clear()
        self.dead.append(worker)
        self.bear()

    @precondition(lambda self: bool(self.dead))
    @rule(who=ALIKE)
    def bury(self, who: int) -> None:
        """Heirs: the journal first, then the leases."""
        worker = self.dead[who % len(self.dead)]
        figures = {number: cells[0] for number, cells in worker.cells.items()}
        self.bank.bury(worker.name, figures, with_money=not worker.journal)
        if not worker.journal or self.kind != Kind.MONEY:
            self.dead.remove(worker)
            for charge, cost in worker.journal:
                self.bank.settle(charge[1], charge[2], charge[3], cost, lost=charge[4])

    @invariant()
    def never_over(self) -> None:
        if self.born:
            for epoch in {*self.spent, self.bank.row.epoch}:
                assert self.spent[epoch] + self.in_flight(epoch) <= self.most

    @invariant()
    def conserved(self) -> None:
        if not self.born:
            return
        row = self.bank.row
        assert row.held == sum(lease.outstanding for lease in row.leases.values())
        assert row.used + row.held + row.lost <= self.most
        for worker in self.workers:
            mine, lease = row.leases.get(worker.name), worker.account.lease
            if mine is not None and mine.number == lease.number and lease.epoch == row.epoch:
                assert mine.granted >= lease.taken + lease.free
                assert lease.free >= 0

    def teardown(self) -> None:
        """Everybody ends well: then nothing is held, and what was used is what happened."""
        if not self.born:
            return
        for worker in self.workers:
            for call in worker.open:
                call.hold.release()
            for _ in range(2):  # the first answer may tell of a grant that was never heard of
                self.exchange(worker, worker.account.want((), self.now(worker), giving=True))
        for worker in self.workers + self.dead:
            for charge, cost in worker.journal:
                self.bank.settle(charge[1], charge[2], charge[3], cost, lost=charge[4])
        for worker in self.dead:
            figures = {number: cells[0] for number, cells in worker.cells.items()}
            self.bank.bury(worker.name, figures, with_money=True)
        row = self.bank.row
        assert row.held == 0
        assert row.used + row.lost == self.spent[row.epoch]


class Requests(Allowance):
    """Requests a minute."""

    kind = Kind.REQUESTS


class Money(Allowance):
    """A budget with windows."""

    kind = Kind.MONEY


class EndlessMoney(Allowance):
    """A budget that never resets."""

    kind = Kind.MONEY
    windowed = False


class Concurrency(Allowance):
    """Calls at one time."""

    kind = Kind.CONCURRENCY
    windowed = False


EFFORT = settings(max_examples=60, stateful_step_count=60, deadline=None)
for machine in (Allowance, Requests, Money, EndlessMoney, Concurrency):
    machine.TestCase.settings = EFFORT
TestTokens = Allowance.TestCase
TestRequests = Requests.TestCase
TestMoney = Money.TestCase
TestEndlessMoney = EndlessMoney.TestCase
TestConcurrency = Concurrency.TestCase
