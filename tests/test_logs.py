"""Log lines: one JSON object each, bundled, complete, and without a secret."""

import asyncio
import json
import logging
import os
from decimal import Decimal
from pathlib import Path

import pytest

from passthrough.logs import BUNDLE_CALLS, SAME_A_SECOND, CallLog, Handler, JsonFormatter, TextFormatter
from passthrough.output import Output
from passthrough.policy.ledger import Entry

PLENTY = 1024 * 1024  # bytes


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


def test_a_line_for_people_says_as_much() -> None:
    told = record("it happened", path=Path("/x y"), count=3, cause='a "reason" status=200', none="", tags=("a", "b"))
    assert TextFormatter().format(told) == (
        "1970-01-01T00:00:00.250Z WARNING passthrough.x: it happened "
        'path="/x y" count=3 cause="a \\"reason\\" status=200" none="" tags=["a","b"]'
    )
    assert TextFormatter().format(record("two", cause="x\ny \udcff")).count("\n") == 0


def lines_of(descriptor: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in os.read(descriptor, PLENTY).splitlines()]


async def test_the_lines_of_calls_leave_in_a_bundle_and_whole() -> None:
    reading, writing = os.pipe()
    log = CallLog(output=Output(writing))
    log.write(Entry(call_id="a", started_at=1.0, duration_ms=250, cost=Decimal("0.10"), tags=("t",)))
    log.write(Entry(call_id="b", started_at=2.0, status=200, metadata="{}"))
    log.flush()
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
    log = CallLog(output=Output(writing))
    log.write(Entry(call_id="a", started_at=1.0, cost=Decimal("0.00012345678901234567890")))
    log.flush()
    assert b'"cost":0.00012345678901234567890' in os.read(reading, PLENTY)


async def test_nothing_is_written_below_the_level() -> None:
    reading, writing = os.pipe()
    log = CallLog(enabled=False, output=Output(writing))
    log.write(Entry(call_id="a", started_at=1.0))
    log.flush()
    os.close(writing)
    assert os.read(reading, 1) == b""


@pytest.mark.parametrize("value", ["\udcff", "é", "\n"])
async def test_a_line_for_people_takes_any_text(value: str) -> None:
    reading, writing = os.pipe()
    log = CallLog(style="text", output=Output(writing))
    log.write(Entry(call_id="a", started_at=1.0, user_agent=value))
    log.flush()
    said = os.read(reading, 1000).decode()
    assert said.startswith("1970-01-01T00:00:01.000Z call call_id=a ")
    assert said.count("\n") == 1


async def test_what_a_client_says_cannot_pass_for_another_field_of_its_line() -> None:
    reading, writing = os.pipe()
    log = CallLog(style="text", output=Output(writing))
    log.write(Entry(call_id="a", started_at=1.0, user_agent="x status=200", tags=("a b",)))
    log.flush()
    said = os.read(reading, 1000).decode()
    assert ' user_agent="x status=200" ' in said
    assert ' tags=["a b"] ' in said


async def test_a_line_that_is_no_utf8_spoils_no_other() -> None:
    reading, writing = os.pipe()
    log = CallLog(output=Output(writing))
    log.write(Entry(call_id="a", started_at=1.0))
    log.write(Entry(call_id="b", started_at=1.0, user_agent="\udcff", units={"\udcff": 1.0}))
    log.flush()
    first, second = lines_of(reading)
    assert (first["call_id"], second["user_agent"], second["units"]) == ("a", "?", {"?": 1})
    assert first.keys() == second.keys() - {"user_agent", "units"}


def test_what_is_said_again_and_again_is_counted() -> None:
    reading, writing = os.pipe()
    handler = Handler(Output(writing))
    handler.setFormatter(JsonFormatter())
    for _ in range(SAME_A_SECOND + 5):
        handler.handle(record("unavailable"))
        handler.handle(record("unavailable", name="another"))
    handler.handle(record("something else"))
    handler.handle(record("unavailable", created=1.5))
    events = [(line["event"], line["logger"]) for line in lines_of(reading)]
    for logger in ("passthrough.x", "another"):
        assert events.count(("unavailable", logger)) == SAME_A_SECOND + (logger == "passthrough.x")
        assert events.count(("more of the same was left out", logger)) == 1
    assert ("something else", "passthrough.x") in events


async def test_what_gathered_is_written_when_there_is_enough_or_after_a_moment() -> None:
    reading, writing = os.pipe()
    log = CallLog(output=Output(writing))
    for _ in range(BUNDLE_CALLS + 1):
        log.write(Entry(call_id="a", started_at=1.0))
    assert len(lines_of(reading)) == BUNDLE_CALLS
    assert len(await asyncio.to_thread(lines_of, reading)) == 1


def test_an_event_goes_to_the_output_and_one_that_cannot_be_written_is_no_error() -> None:
    reading, writing = os.pipe()
    handler = Handler(Output(writing))
    handler.setFormatter(JsonFormatter())
    handler.handle(record("it happened", odd="\udcff"))
    assert [(line["event"], line["odd"]) for line in lines_of(reading)] == [("it happened", "?")]
    os.close(reading)
    handler.handle(record("and again"))
