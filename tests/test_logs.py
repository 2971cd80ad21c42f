"""Log lines: one JSON object each, bundled, complete, and without a secret."""

import asyncio
import json
import logging
import os
from decimal import Decimal
from pathlib import Path

import pytest

from passthrough.logs import BUNDLE_CALLS, BUNDLES_KEPT, CallLog, JsonFormatter
from passthrough.policy.ledger import Entry

PLENTY = 1024 * 1024  # bytes
PIPE_BYTES = 64 * 1024  # Linux keeps as many for a reader who is late


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelname": "WARNING", "name": "passthrough.x", "created": 0.25})
    made.__dict__.update(extra)
    return made


def test_an_event_is_one_json_object_with_what_its_caller_added() -> None:
    line = JsonFormatter().format(record("it happened", cause="a reason", count=3))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "event": "it happened",
        "logger": "passthrough.x",
        "cause": "a reason",
        "count": 3,
    }


def test_an_event_never_breaks_the_line_whatever_is_in_it() -> None:
    line = JsonFormatter().format(record("two\nlines", odd=object(), path=Path("/x"), text="\udcff\x00"))
    assert "\n" not in line
    assert json.loads(line)["path"] == "/x"


def lines_of(descriptor: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in os.read(descriptor, PLENTY).splitlines()]


async def test_the_lines_of_calls_leave_in_a_bundle_and_whole() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    log.write(Entry(call_id="a", started_at=1.0, duration_ms=250, cost=Decimal("0.10"), tags=("t",)))
    log.write(Entry(call_id="b", started_at=2.0, status=200, metadata="{}"))
    log.close()
    first, second = lines_of(reading)
    always = {"level": "info", "event": "call", "usage_source": "none", "price_status": "not_metered"} | {
        "outcome": "ok",
        "stream": False,
        "request_bytes": 0,
        "response_bytes": 0,
    }
    assert first == always | {"time": "1970-01-01T00:00:01.250Z", "call_id": "a", "duration_ms": 250, "status": 0} | {
        "cost": 0.1,
        "tags": ["t"],
    }
    assert second == always | {"time": "1970-01-01T00:00:02.000Z", "call_id": "b", "duration_ms": 0, "status": 200}


async def test_a_decimal_is_written_digit_by_digit() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    log.write(Entry(call_id="a", started_at=1.0, cost=Decimal("0.00012345678901234567890")))
    log.flush()
    assert b'"cost":0.00012345678901234567890' in os.read(reading, PLENTY)


async def test_a_reader_who_stalls_stops_no_call_and_what_is_lost_is_counted() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    call = Entry(call_id="x" * (PIPE_BYTES // BUNDLE_CALLS), started_at=1.0)
    for _ in range((BUNDLES_KEPT + 10) * BUNDLE_CALLS):
        log.write(call)
    assert 0 < log.lost <= 10 * BUNDLE_CALLS
    os.close(reading)
    log.close()


async def test_nothing_is_written_below_the_level() -> None:
    reading, writing = os.pipe()
    log = CallLog(enabled=False, fd=writing)
    log.write(Entry(call_id="a", started_at=1.0))
    log.close()
    os.close(writing)
    assert os.read(reading, 1) == b""


async def test_a_standard_output_that_is_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = CallLog(fd=writing)
    log.write(Entry(call_id="a", started_at=1.0))
    log.close()


@pytest.mark.parametrize("value", ["\udcff", "é", "\n"])
async def test_a_line_for_people_takes_any_text(value: str) -> None:
    reading, writing = os.pipe()
    log = CallLog(style="text", fd=writing)
    log.write(Entry(call_id="a", started_at=1.0, user_agent=value))
    log.flush()
    said = os.read(reading, 1000).decode()
    assert said.startswith("1970-01-01T00:00:01.000Z call call_id=a ")
    assert said.count("\n") == 1


async def test_a_line_that_is_no_utf8_spoils_no_other() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    log.write(Entry(call_id="a", started_at=1.0))
    log.write(Entry(call_id="b", started_at=1.0, user_agent="\udcff", units={"\udcff": 1.0}))
    log.flush()
    first, second = lines_of(reading)
    assert (first["call_id"], second["user_agent"], second["units"]) == ("a", "?", {"?": 1})
    assert first.keys() == second.keys() - {"user_agent", "units"}


async def test_lines_of_workers_who_share_a_slow_pipe_stay_whole() -> None:
    reading, writing = os.pipe()
    calls = 40 * BUNDLE_CALLS
    logs = [CallLog(fd=writing), CallLog(fd=writing)]
    for number in range(calls):
        for log in logs:
            log.write(Entry(call_id=f"{number}", started_at=1.0, user_agent="x" * 200))
    read = bytearray()
    while read.count(b"\n") < calls * len(logs):
        read += os.read(reading, 1000)
    assert [json.loads(line)["event"] for line in read.splitlines()] == ["call"] * calls * len(logs)


async def test_the_last_lines_are_waited_for_where_many_wait_before_them() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    call = Entry(call_id="x" * (PIPE_BYTES // BUNDLE_CALLS), started_at=1.0)
    while not log.lost:
        log.write(call)
    taken = asyncio.get_running_loop().run_in_executor(None, all_of, reading)
    await asyncio.to_thread(log.close)
    os.close(writing)
    assert len(await taken) >= BUNDLES_KEPT * BUNDLE_CALLS


def all_of(descriptor: int) -> list[bytes]:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.readlines()


async def test_a_standard_output_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    log = CallLog(fd=writing)
    call = Entry(call_id="x" * (PIPE_BYTES // BUNDLE_CALLS), started_at=1.0)
    calls = 5 * BUNDLE_CALLS
    for _ in range(calls):
        log.write(call)
    read = bytearray()
    while read.count(b"\n") < calls:
        read += await asyncio.wait_for(asyncio.to_thread(os.read, reading, PLENTY), 5)
