from pathlib import Path

import pytest

from passthrough.errors import Unavailable
from passthrough.storage import ledger_owner
from passthrough.storage.journal import HEADROOM_BYTES, MIB, Journal
from tests.storage.disk import contents, files_limited_to, in_order


def journal(parent: Path, name: str = "me", max_bytes: int = 64 * MIB) -> Journal:
    return Journal(parent, name=name, max_bytes=max_bytes)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_was_appended_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    for number in range(3):
        mine.append(b"call %d" % number)
        assert in_order(tmp_path) == [b"call %d" % each for each in range(number + 1)]
    mine.close()


def test_payloads_that_are_appended_at_once_are_all_there_or_none(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.append(b"one", b"two")
    with files_limited_to(100), pytest.raises(Unavailable):
        mine.append(b"three", bytes(500))
    mine.append(b"four", b"five")
    assert in_order(tmp_path) == [b"one", b"two", b"four", b"five"]
    mine.close()


def test_segments_are_closed_by_size_and_keep_their_order(tmp_path: Path) -> None:
    mine = journal(tmp_path, max_bytes=8 * MIB)
    calls = [bytes([number]) * 60_000 for number in range(40)]
    for call in calls:
        mine.append(call)
    assert [segment.sealed for segment in mine.segments] == [True, True, False]
    assert in_order(tmp_path) == calls
    assert mine.size == sum(path.stat().st_size for path in tmp_path.glob("*/*.calls"))
    mine.close()


def test_a_discarded_segment_gives_its_room_back(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.append(b"shipped")
    mine.seal()
    mine.append(b"not yet")
    mine.discard(mine.segments[0])
    assert in_order(tmp_path) == [b"not yet"]
    assert mine.size == mine.segments[0].size
    mine.close()


def test_a_full_journal_refuses_new_calls_but_has_room_for_those_that_are_open(tmp_path: Path) -> None:
    mine = journal(tmp_path, max_bytes=MIB)
    while mine.writable():
        mine.append(bytes(60_000))
    assert "is full" in (mine.problem() or "")
    while mine.size < MIB + HEADROOM_BYTES:
        mine.append(bytes(60_000))
    with pytest.raises(Unavailable):
        mine.append(bytes(60_000))
    for segment in mine.segments:
        if segment.sealed:
            mine.discard(segment)
    assert mine.writable()
    assert mine.problem() is None
    mine.close()


def test_the_shares_of_all_workers_add_up_to_what_is_on_the_disk(tmp_path: Path) -> None:
    dead, eldest, youngest = (journal(tmp_path, name) for name in ("1-dead", "2-eldest", "3-youngest"))
    for each, size in ((dead, 50_000), (eldest, 3000), (youngest, 200)):
        each.append(bytes(size))

    def shares() -> list[int]:
        for each in living:
            each.inspect()
        assert sum(each.share for each in living) == sum(path.stat().st_size for path in tmp_path.glob("*/*.calls"))
        return [each.share for each in living]

    living = [dead, eldest, youngest]
    assert [size // 100 for size in shares()] == [500, 30, 2]
    living.remove(dead)
    dead.close()
    assert [size // 100 for size in shares()] == [530, 2]  # nobody has adopted it
    [orphan] = ledger_owner.adopt(tmp_path)
    youngest.adopted = frozenset([orphan.path])
    assert [size // 100 for size in shares()] == [30, 502]
    youngest.adopted = frozenset()
    orphan.release()
    assert [size // 100 for size in shares()] == [530, 2]
    eldest.close()
    living.remove(eldest)
    assert [size // 100 for size in shares()] == [532]
    youngest.close()


def test_what_siblings_keep_counts_too(tmp_path: Path) -> None:
    sibling, mine = journal(tmp_path, "sibling"), journal(tmp_path, max_bytes=MIB)
    for _ in range(20):
        sibling.append(bytes(60_000))
    assert mine.writable()
    mine.inspect()
    assert not mine.writable()
    sibling.close()
    mine.close()


def test_a_sibling_that_cannot_be_looked_at_keeps_nobody_from_finding_the_disk_well(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    sibling = tmp_path / "sibling"
    sibling.mkdir()
    (sibling / ledger_owner._LOCK).symlink_to(ledger_owner._LOCK)  # not even root can open it
    with files_limited_to(1), pytest.raises(Unavailable):
        mine.append(b"x" * 100)
    assert not mine.writable()
    mine.inspect()
    assert mine.writable()
    mine.close()


def test_a_disk_that_fills_up_refuses_the_call_and_loses_no_other(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.append(b"before")
    with files_limited_to(100), pytest.raises(Unavailable):
        mine.append(bytes(500))
    assert not mine.writable()
    assert "cannot be written" in (mine.problem() or "")
    mine.inspect()
    assert mine.writable()
    mine.append(b"after")
    assert in_order(tmp_path) == [b"before", b"after"]
    mine.close()


def test_a_disk_that_takes_not_even_a_new_file_refuses_calls_and_keeps_no_file_of_them(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    with files_limited_to(3):
        for _ in range(5):
            with pytest.raises(Unavailable):
                mine.append(b"call")
            mine.inspect()
        assert list(tmp_path.glob("*/*.calls")) == []
        assert mine.segments == ()
        assert mine.size == 0
    with pytest.raises(Unavailable):  # nobody has looked at the disk since
        mine.append(b"call")
    mine.inspect()
    mine.append(b"after")
    assert in_order(tmp_path) == [b"after"]
    mine.close()


def test_calls_that_a_full_disk_refuses_begin_no_segments(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.append(b"before")
    with files_limited_to(100):
        for _ in range(5):
            with pytest.raises(Unavailable):
                mine.append(bytes(500))
    mine.append(b"small")
    mine.inspect()
    mine.append(b"after")
    assert len(mine.segments) == 1
    assert in_order(tmp_path) == [b"before", b"small", b"after"]
    assert mine.size == mine.segments[0].path.stat().st_size
    mine.close()


def test_a_directory_that_goes_away_is_found_out_before_the_next_call(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    (tmp_path / "me").rename(tmp_path / "elsewhere")
    mine.inspect()
    assert not mine.writable()
    assert "cannot be written" in (mine.problem() or "")
    (tmp_path / "elsewhere").rename(tmp_path / "me")
    mine.inspect()
    assert mine.writable()
    mine.close()


def test_sync_brings_down_every_segment_and_closes_those_that_grow_no_more(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    for _ in range(5):
        mine.append(b"call")
        mine.seal()
    held = open_files()
    mine.sync()
    assert open_files() == held - 5
    mine.close()


def test_a_strict_journal_is_on_the_disk_with_every_call(tmp_path: Path) -> None:
    mine = Journal(tmp_path, name="strict", max_bytes=MIB, sync_each=True)
    mine.append(b"call")
    assert in_order(tmp_path) == [b"call"]
    mine.close()


def test_the_directory_of_a_living_process_is_not_adopted(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.append(b"mine")
    assert ledger_owner.adopt(tmp_path) == []
    mine.close()


def test_what_a_process_left_is_adopted_once(tmp_path: Path) -> None:
    for name in ("01", "02"):
        left = journal(tmp_path, name)
        left.append(name.encode())
        left.close()
    adopted = ledger_owner.adopt(tmp_path)
    assert [orphan.path.name for orphan in adopted] == ["01", "02"]
    assert ledger_owner.adopt(tmp_path) == []
    for orphan in adopted:
        orphan.release()
    again = ledger_owner.adopt(tmp_path)
    assert [contents(path) for orphan in again for path in orphan.segments()] == [[b"01"], [b"02"]]
    for orphan in again:
        for path in orphan.segments():
            path.unlink()
        orphan.release()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(OSError, match="Not a directory"):
        journal(tmp_path / "file")
