import subprocess
import sys
import time
import uuid
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.usage import Usage
from passthrough.policy.ledger import CallIds, Entry, first_call_id, storable, time_of

NOW = 1_770_000_000.123

CONTRACT = [
    "call_id",
    "started_at",
    "duration_ms",
    "ttfb_ms",
    "key_id",
    "key_alias",
    "user_id",
    "team_id",
    "end_user",
    "tags",
    "session_id",
    "client_ip",
    "user_agent",
    "service",
    "operation",
    "model",
    "billed_model",
    "region",
    "identity",
    "status",
    "error_type",
    "upstream_request_id",
    "client_invocation_id",
    "attempt",
    "request_bytes",
    "response_bytes",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "usage_source",
    "cost",
    "price_status",
    "outcome",
    "stream",
]


def test_an_entry_begins_with_the_names_that_users_rely_on_in_their_order() -> None:
    assert list(Entry.__struct_fields__[: len(CONTRACT)]) == CONTRACT


def test_an_entry_of_an_older_release_is_read_with_defaults_for_what_it_lacks() -> None:
    old = msgspec.msgpack.encode([str(uuid.uuid4()), NOW, 17])
    entry = msgspec.msgpack.decode(old, type=Entry)
    assert (entry.duration_ms, entry.cost, entry.tags) == (17, None, ())


def test_an_entry_of_a_newer_release_is_read_without_what_we_do_not_know() -> None:
    entry = Entry(call_id="c", started_at=NOW, cost=Decimal("0.1000"))
    newer = [*msgspec.msgpack.decode(msgspec.msgpack.encode(entry)), "a field of next year"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=Entry) == entry


def test_a_cost_passes_the_journal_to_the_last_digit() -> None:
    cost = Decimal("0.000000300000000000000001")
    payload = msgspec.msgpack.encode(Entry(call_id="c", started_at=NOW, cost=cost))
    assert str(msgspec.msgpack.decode(payload, type=Entry).cost) == str(cost)


def test_an_entry_remembers_its_usage_well_enough_to_be_priced_again() -> None:
    usage = Usage(
        input_tokens=3,
        output_tokens=4,
        cache_write_tokens=5,
        source="body",
        tier="flex",
        units={"topicPolicyUnits": 2.0},
        by_model=(Usage(input_tokens=3, model="amazon.nova-lite-v1:0"),),
    )
    entry = Entry(call_id="c", started_at=NOW)
    entry.measured(usage)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=Entry)
    assert again.usage() == usage


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    made = uuid.UUID(CallIds()(NOW))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(NOW * 1000)
    assert time_of(str(made)) == int(NOW * 1000) / 1000


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=50))
def test_ids_only_grow_whatever_the_clock_does(moments: list[float]) -> None:
    ids = CallIds()
    made = [ids(moment) for moment in moments]
    assert made == sorted(set(made))
    assert all(uuid.UUID(each).version == 7 for each in made)


def test_two_processes_do_not_make_the_same_id() -> None:
    one, other = CallIds(), CallIds()
    assert len({one(NOW) for _ in range(1000)} | {other(NOW) for _ in range(1000)}) == 2000


def test_a_forked_process_does_not_go_on_with_the_random_bytes_of_its_parent() -> None:
    program = f"""
import os
from passthrough.policy.ledger import uuid7
uuid7({NOW})
for _ in range(2):
    if os.fork() == 0:
        os.write(1, uuid7({NOW + 1}).encode() + b" ")
        os._exit(0)
    os.wait()
"""
    made = subprocess.check_output([sys.executable, "-c", program], text=True).split()  # noqa: S603  # our own program
    assert len(set(made)) == 2


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_the_first_id_of_a_moment_parts_earlier_calls_from_later_ones(bound: float, moment: float) -> None:
    bound = int(bound * 1000) / 1000
    assert (CallIds()(moment) >= first_call_id(bound)) == (int(moment * 1000) >= round(bound * 1000))


def test_what_a_database_refuses_is_cleaned_and_the_rest_stays() -> None:
    entry = Entry(
        call_id=CallIds()(time.time()),
        started_at=NOW,
        model="a\x00b",
        user_agent="\udcff" + "x" * 5000,
        tags=tuple(f"tag{number}\ud800" for number in range(1000)),
        input_tokens=10**30,
        output_tokens=12,
        status=200,
        cost=Decimal("1.5"),
        units={"a\x00": 1.0},
    )
    clean = storable(entry)
    assert clean.model == "a\N{REPLACEMENT CHARACTER}b"
    assert clean.user_agent is not None
    assert len(clean.user_agent) == 256
    assert len(clean.tags) == 32
    assert (clean.input_tokens, clean.output_tokens, clean.status, clean.cost) == (None, 12, 200, Decimal("1.5"))
    assert clean.call_id == entry.call_id
    msgspec.msgpack.encode(clean)
