"""What happens during a soak: clients that call, some of which leave; processes that die; a database that goes."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.adversity.program import Postgres, Program, kill_quietly
from tests.adversity.soak_calls import REFUSED, Call, Caller, Expected, any_call, expected
from tests.fakes.peer import Message, Peer, connect

LEAVING = 0.12  # of all calls: their client hangs up at one of these moments
MOMENTS = ("half of the request", "request", "head", "some of the answer")


@dataclass
class Notes:
    """What the clients know: each call that was begun is in one of the first three.

    `completed`: the whole answer arrived. `unfinished`: a head, not the whole answer. `headless`: how many had
    no head. `hung`: waits that lasted longer than any should.
    """

    completed: dict[str, Expected] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    headless: int = 0
    hung: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def complete(self, call_id: str, what: Expected) -> None:
        assert call_id not in self.completed, f"two answers bear the id {call_id}"
        self.completed[call_id] = what
        self.counts[f"{what.status} {what.outcome}"] += 1


class World:
    """Runs clients against `program` for as long as its disasters last. `seed` decides what is drawn."""

    def __init__(self, program: Program, postgres: Postgres, callers: list[Caller], *, word: str, seed: int) -> None:
        self.notes = Notes()
        self._program = program
        self._postgres = postgres
        self._callers = callers
        self._word = word
        self._seed = seed
        self._up = asyncio.Event()
        self._up.set()
        self._over = asyncio.Event()
        self._completion = asyncio.Event()

    async def run(self, *, clients: int, seconds: float) -> None:
        """Let everything happen for about so long; return when the last client has its last answer."""
        async with asyncio.TaskGroup() as group:
            killer = group.create_task(self._kill_workers(self._moments("killer")))
            for number in range(clients):
                group.create_task(self._client(self._moments(f"client {number}")))
            await self._disasters(self._moments("disasters"), seconds)
            self._over.set()
            killer.cancel()

    def _moments(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")  # noqa: S311  # no secret

    # -- disasters

    async def _disasters(self, moments: random.Random, seconds: float) -> None:
        """Each disaster at least once, in any order, then any of them until the time is over."""
        every = [self._outage, self._crash, self._death, self._beheading, self._restart]
        clock = asyncio.get_running_loop().time
        ends = clock() + seconds
        due = moments.sample(every, len(every))
        while due or clock() < ends:
            disaster = due.pop() if due else moments.choice(every)
            await asyncio.sleep(moments.uniform(0.5, 2))
            self.notes.counts[disaster.__name__.strip("_")] += 1
            await disaster(moments)
        await asyncio.sleep(moments.uniform(0.5, 1.5))

    async def _outage(self, moments: random.Random) -> None:
        await self._without_database(self._postgres.stop, moments)

    async def _crash(self, moments: random.Random) -> None:
        await self._without_database(self._postgres.crash, moments)

    async def _without_database(self, end: Callable[[], None], moments: random.Random) -> None:
        await asyncio.to_thread(end)
        await asyncio.sleep(moments.uniform(0.5, 3))
        await asyncio.to_thread(self._postgres.start)

    async def _death(self, _: random.Random) -> None:
        """Everything is killed and started again."""
        self._up.clear()
        await asyncio.to_thread(self._program.kill)
        await asyncio.to_thread(self._program.start)
        self._up.set()

    async def _beheading(self, _: random.Random) -> None:
        """The supervisor is killed; the next one starts while the workers of the first still drain."""
        self._up.clear()
        await asyncio.to_thread(self._program.kill_supervisor)
        await asyncio.to_thread(self._program.start)
        self._up.set()

    async def _restart(self, _: random.Random) -> None:
        """What a deployment does: open calls are finished first."""
        self._up.clear()
        assert await asyncio.to_thread(self._program.stop) == 0
        await asyncio.to_thread(self._program.start)
        self._up.set()

    async def _kill_workers(self, moments: random.Random) -> None:
        """At any moment, or right when a client has an answer in hand."""
        while True:
            await asyncio.sleep(moments.uniform(0.5, 3))
            life, workers = self._program.url, await asyncio.to_thread(self._program.workers)
            if moments.random() < 0.5:
                self._completion.clear()
                await self._completion.wait()
            if workers and self._up.is_set() and self._program.url == life:
                kill_quietly(moments.choice(workers))
                self.notes.counts["killed workers"] += 1

    # -- clients

    async def _client(self, moments: random.Random) -> None:
        while not self._over.is_set():
            await self._up.wait()
            try:
                async with connect(self._program.url) as peer:
                    for _ in range(moments.randint(1, 30)):
                        call = any_call(moments, self._callers, self._word)
                        if not await self._called(peer, call, moments) or self._over.is_set():
                            break
            except TimeoutError:
                self.notes.hung.append("a connection is not accepted")
            except OSError:
                self.notes.counts["connections lost"] += 1

    async def _called(self, peer: Peer, call: Call, moments: random.Random) -> bool:
        """Make a call; whether the connection can carry another one."""
        leaves = moments.choice(MOMENTS) if moments.random() < LEAVING else None
        self.notes.counts["calls"] += 1
        self.notes.headless += 1  # until it has a head
        try:
            answer = await self._answered(peer, call, leaves, moments)
        except TimeoutError:
            self.notes.hung.append(f"{call.operation} with {call.fault}, left after {leaves}")
            return False
        except EOFError:
            self.notes.counts["no answer"] += 1
            return False
        if answer is None:
            self.notes.counts[f"left after {leaves}"] += 1
            peer.reset() if moments.random() < 0.5 else peer.cut()
            return False
        if answer.status == REFUSED:
            await asyncio.sleep(moments.uniform(0.05, 0.2))  # else the refused would be most of all calls
        return answer.ending == "whole" and answer.value("connection") != "close"

    async def _answered(self, peer: Peer, call: Call, leaves: str | None, moments: random.Random) -> Message | None:
        """The answer, noted; None when it is time to leave. `EOFError` without a head."""
        request = call.request()
        await peer.send(request[: moments.randrange(len(request))] if leaves == MOMENTS[0] else request)
        if leaves in MOMENTS[:2]:
            return None
        first, fields = await peer.head()
        call_id = next(value.decode() for name, value in fields if name.lower() == b"x-passthrough-call-id")
        self.notes.headless -= 1
        self.notes.unfinished.add(call_id)  # until it is whole
        if leaves == MOMENTS[3]:
            await peer.some()
        if leaves is not None:
            return None
        answer = await peer.body(first, fields)
        if answer.ending == "whole":
            self.notes.unfinished.discard(call_id)
            self.notes.complete(call_id, expected(call, answer))
            self._completion.set()
        else:
            self.notes.counts["answers cut"] += 1
        return answer
