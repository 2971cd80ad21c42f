"""Log lines: one JSON object each, bundled, complete, and without a secret."""

import json
import logging
import os
from decimal import Decimal
from pathlib import Path

import pytest

from passthrough.logs import BUNDLE_BYTES, BUNDLES_KEPT, CallLog, JsonFormatter


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
    return [json.loads(line) for line in os.read(descriptor, 10 * BUNDLE_BYTES).splitlines()]


async def test_the_lines_of_calls_leave_in_a_bundle_and_whole() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    log.write(1.0, {"call_id": "a", "cost": Decimal("0.10")})
    log.write(2.0, {"call_id": "b"})
    log.close()
    first, second = lines_of(reading)
    assert (first["call_id"], first["event"], second["call_id"]) == ("a", "call", "b")


async def test_a_decimal_is_written_digit_by_digit() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    log.write(1.0, {"cost": Decimal("0.00012345678901234567890")})
    log.flush()
    assert b'"cost":0.00012345678901234567890' in os.read(reading, BUNDLE_BYTES)


async def test_a_reader_who_stalls_stops_no_call_and_what_is_lost_is_counted() -> None:
    reading, writing = os.pipe()
    log = CallLog(fd=writing)
    line = {"call_id": "x" * BUNDLE_BYTES}
    for _ in range(BUNDLES_KEPT + 10):
        log.write(1.0, line)
    assert 0 < log.lost <= 10
    os.close(reading)
    log.close()


async def test_nothing_is_written_below_the_level() -> None:
    reading, writing = os.pipe()
    log = CallLog(enabled=False, fd=writing)
    log.write(1.0, {"call_id": "a"})
    log.close()
    os.close(writing)
    assert os.read(reading, 1) == b""


async def test_a_standard_output_that_is_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = CallLog(fd=writing)
    log.write(1.0, {"call_id": "a"})
    log.close()


@pytest.mark.parametrize("value", ["\udcff", "é", "\n"])
async def test_a_line_for_people_takes_any_text(value: str) -> None:
    reading, writing = os.pipe()
    log = CallLog(style="text", fd=writing)
    log.write(1.0, {"user_agent": value})
    log.flush()
    assert os.read(reading, 1000).startswith(b"1970-01-01T00:00:01.000Z call user_agent=")
