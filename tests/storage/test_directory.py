"""The rules of a directory, with a loader that answers when it is told to."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from passthrough.errors import Unavailable
from passthrough.storage.directory import Directory, Found


class Loader:
    """Knows `values`; holds its answers back while `held` is set, fails while `away` is."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()

    async def load(self, identifiers: list[str]) -> Mapping[str, Found[str]]:
        self.asked.append(identifiers)
        answer = {i: Found(self.values[i], (f"key:{i}", "team:t")) for i in identifiers if i in self.values}
        self.entered.set()
        await self.open.wait()
        if self.away:
            raise Unavailable("away")
        return answer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def directory(loader: Loader, clock: Clock) -> AsyncIterator[Directory[str]]:
    made = Directory("key", loader.load, clock=clock, size=3, absent_size=4, outage_seconds=60.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        made.regained()
        yield made
        task.cancel()


async def test_a_hundred_callers_who_miss_the_same_key_ask_once(directory: Directory[str], loader: Loader) -> None:
    loader.values["a"] = "A"
    assert await asyncio.gather(*(directory.find("a") for _ in range(100))) == ["A"] * 100
    assert loader.asked == [["a"]]


async def test_keys_missed_while_a_query_runs_share_the_next_one(directory: Directory[str], loader: Loader) -> None:
    loader.open.clear()
    first = asyncio.create_task(directory.find("x"))
    await loader.entered.wait()
    others = [asyncio.create_task(directory.find(f"wrong-{n}")) for n in range(400)]
    await asyncio.sleep(0)
    loader.open.set()
    assert await asyncio.gather(first, *others) == [None] * 401
    assert [len(asked) for asked in loader.asked] == [1, 400]


async def test_a_caller_who_leaves_takes_nobodys_answer_along(directory: Directory[str], loader: Loader) -> None:
    loader.values["a"] = "A"
    loader.open.clear()
    leaving, staying = (asyncio.create_task(directory.find("a")) for _ in range(2))
    await loader.entered.wait()
    leaving.cancel()
    await asyncio.sleep(0)
    loader.open.set()
    assert await staying == "A"
    assert leaving.cancelled()


async def test_what_does_not_exist_is_remembered_for_a_while(
    directory: Directory[str], loader: Loader, clock: Clock
) -> None:
    assert await directory.find("a") is None
    loader.values["a"] = "A"  # without a word of it
    assert await directory.find("a") is None
    assert (len(loader.asked), directory.counts.absent_remembered) == (1, 1)
    clock.now += 6
    assert await directory.find("a") == "A"


async def test_a_key_that_comes_into_being_is_known_at_once(directory: Directory[str], loader: Loader) -> None:
    assert await directory.find("a") is None
    loader.values["a"] = "A"
    directory.changed("key:a")
    assert await directory.find("a") == "A"


async def test_a_change_during_the_query_makes_it_be_asked_again(directory: Directory[str], loader: Loader) -> None:
    for subject in ("key:a", "team:t"):
        loader.values["a"] = "old"
        loader.open.clear()
        loader.entered.clear()
        finding = asyncio.create_task(directory.find("a"))
        await loader.entered.wait()
        loader.values["a"] = "new"
        directory.changed(subject)
        loader.open.set()
        assert await finding == "new"
        directory.changed("key:a")


async def test_a_change_of_the_team_forgets_all_of_its_keys(directory: Directory[str], loader: Loader) -> None:
    loader.values.update(a="A", b="B")
    await directory.find("a")
    await directory.find("b")
    directory.changed("team:other")
    assert (directory.cached("a"), directory.cached("b")) == ("A", "B")
    directory.changed("team:t")
    assert (directory.cached("a"), directory.cached("b"), len(directory)) == (None, None, 0)


async def test_the_least_used_goes_when_there_are_too_many(directory: Directory[str], loader: Loader) -> None:
    loader.values.update(a="A", b="B", c="C", d="D")
    for identifier in "abc":
        await directory.find(identifier)
    assert directory.cached("a") == "A"  # used
    await directory.find("d")
    assert len(directory) == 3
    assert directory.cached("b") is None
    assert [directory.cached(i) for i in "acd"] == ["A", "C", "D"]


async def test_what_weighs_too_much_goes_too(loader: Loader) -> None:
    directory = Directory("key", loader.load, most_bytes=1000)
    loader.values.update(a="A" * 600, b="B" * 600)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(directory.run())
        directory.regained()
        await directory.find("a")
        await directory.find("b")
        task.cancel()
    assert (directory.cached("a"), directory.cached("b")) == (None, "B" * 600)
    assert directory._by_subject.keys() == {"key:b", "team:t"}


async def test_wrong_keys_are_remembered_in_a_bounded_number(directory: Directory[str]) -> None:
    for n in range(100):
        await directory.find(f"wrong-{n}")
    assert len(directory._absent) == 4
    assert (len(directory._by_subject), len(directory._asked)) == (0, 0)


async def test_while_nobody_listens_every_call_asks(directory: Directory[str], loader: Loader) -> None:
    loader.values["a"] = "A"
    await directory.find("a")
    directory.lost()
    assert directory.cached("a") is None
    loader.values["a"] = "B"
    assert await directory.find("a") == "B"
    assert directory.cached("a") is None
    loader.values["a"] = "C"
    assert await directory.find("a") == "C"


async def test_what_was_known_is_asked_again_when_somebody_listens_again(
    directory: Directory[str], loader: Loader
) -> None:
    loader.values.update(a="A", b="B")
    await directory.find("a")
    await directory.find("b")
    directory.lost()
    loader.values["a"] = "changed"
    del loader.values["b"]
    loader.entered.clear()
    directory.regained()
    assert directory.cached("a") is None
    await loader.entered.wait()
    await asyncio.sleep(0)
    assert directory.cached("a") == "changed"
    assert len(directory) == 1


async def test_while_the_database_is_away_the_known_are_served_for_a_time_and_the_unknown_are_not(
    directory: Directory[str], loader: Loader, clock: Clock
) -> None:
    loader.values["a"] = "A"
    await directory.find("a")
    loader.away = True
    directory.lost()
    for _ in range(100):
        assert await directory.find("a") == "A"
        with pytest.raises(Unavailable):
            await directory.find("b")
    # one failure a second, not one a call
    assert len(loader.asked) == 2
    clock.now += 59
    assert await directory.find("a") == "A"
    clock.now += 2
    with pytest.raises(Unavailable):
        await directory.find("a")


async def test_while_the_database_hangs_only_the_first_caller_of_a_known_key_waits_for_it(
    directory: Directory[str], loader: Loader, clock: Clock
) -> None:
    loader.values["a"] = "A"
    await directory.find("a")
    loader.away = True
    directory.lost()
    await directory.find("a")
    loader.open.clear()
    clock.now += 5
    assert await directory.find("a") == "A"  # and asks, behind its back, whether it is away still
    assert await directory.find("a") == "A"
    await asyncio.sleep(0)
    assert len(loader.asked) == 3
    loader.away = False
    loader.values["a"] = "B"
    loader.open.set()
    while (found := await directory.find("a")) == "A":  # noqa: ASYNC110  # the next find sees it
        await asyncio.sleep(0)
    assert found == "B"


async def test_an_hour_of_outage_is_counted_from_the_first_loss_of_what_was_not_confirmed_since(
    directory: Directory[str], loader: Loader, clock: Clock
) -> None:
    loader.values["a"] = "A"
    await directory.find("a")
    loader.away = True
    directory.lost()
    clock.now += 50
    directory.regained()  # it listens again, and is lost before anything could be asked
    directory.lost()
    clock.now += 20
    with pytest.raises(Unavailable):
        await directory.find("a")


async def test_a_key_that_changed_is_not_served_as_it_was_because_the_database_then_went_away(
    directory: Directory[str], loader: Loader
) -> None:
    loader.values["a"] = "A"
    await directory.find("a")
    directory.changed("key:a")
    loader.away = True
    with pytest.raises(Unavailable):
        await directory.find("a")


async def test_a_loaders_bug_is_the_askers_error_and_the_next_ask_is_answered(
    directory: Directory[str], loader: Loader
) -> None:
    loader.values["a"] = "A"
    original, loader.load = loader.load, None  # type: ignore[assignment, method-assign]  # what a bug is
    directory._load = loader.load  # type: ignore[assignment]  # as above
    with pytest.raises(TypeError):
        await directory.find("a")
    directory._load = original
    assert await directory.find("a") == "A"


async def test_too_many_lookups_at_once_are_refused_not_piled_up(
    directory: Directory[str], loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passthrough.storage.directory._MOST_WAITING", 10)
    loader.open.clear()
    finding = [asyncio.create_task(directory.find(f"k{n}")) for n in range(11)]
    done, _ = await asyncio.wait(finding, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert isinstance(done.pop().exception(), Unavailable)
    loader.open.set()
    await asyncio.wait(finding)
