"""Metrics of one process, and of several behind one address."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from passthrough import metrics_merged
from passthrough.metrics import Metrics
from passthrough.metrics_merged import merged_metrics
from passthrough.policy.ledger import Entry
from passthrough.storage.journal import MIB, Journal
from tests.fakes.peer import until
from tests.fakes.running import running


def samples(exposition: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def with_calls(count: int, *, open_calls: int) -> Metrics:
    metrics = Metrics()
    metrics.watch("gauge", "passthrough_open_calls", "Calls being served now.", lambda: open_calls)
    for _ in range(count):
        entry = Entry(call_id="x", started_at=0.0, duration_ms=30, service="bedrock-runtime", operation="Converse")
        entry.status, entry.input_tokens, entry.output_tokens = 200, 3, 4
        metrics.call_ended(entry)
    return metrics


CALLS = (
    "passthrough_calls_total",
    (("operation", "Converse"), ("outcome", "ok"), ("service", "bedrock-runtime"), ("status", "200")),
)
OPEN = ("passthrough_open_calls", ())
OUTPUT = ("gen_ai_client_token_usage_total", (("gen_ai_token_type", "output"),))


def test_calls_and_tokens_are_counted() -> None:
    found = samples(with_calls(3, open_calls=1).exposition())
    assert found[CALLS] == 3
    assert found[OUTPUT] == 12
    assert found[OPEN] == 1


def test_a_call_of_a_model_without_a_price_is_counted() -> None:
    metrics = Metrics()
    metrics.call_ended(Entry(call_id="x", started_at=0.0, price_status="unknown_model"))
    assert samples(metrics.exposition())[("passthrough_unpriced_calls_total", ())] == 1


async def test_several_workers_are_summed_and_a_dead_one_keeps_its_counts_only(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / f"{int(dead.stdout)}.prom").write_bytes(with_calls(2, open_calls=7).exposition())
    (tmp_path / f"{os.getppid()}.prom").write_bytes(with_calls(5, open_calls=10).exposition())
    own = with_calls(1, open_calls=100)
    async with merged_metrics(tmp_path, own.exposition) as merged:
        found = samples(merged.exposition())
    assert found[CALLS] == 8
    assert found[OUTPUT] == 32
    assert found[OPEN] == 110


async def test_a_worker_leaves_its_last_counts_to_the_others(tmp_path: Path) -> None:
    own = with_calls(1, open_calls=0)
    async with merged_metrics(tmp_path, own.exposition):
        own.call_ended(Entry(call_id="y", started_at=0.0, status=200, service="bedrock-runtime", operation="Converse"))
    (left,) = tmp_path.glob("*.prom")
    assert samples(left.read_bytes())[CALLS] == 2


async def test_a_disk_that_was_full_for_a_moment_ends_no_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_merged, "PUBLISH_SECONDS", 0.01)
    folder, away = tmp_path / "metrics", tmp_path / "away"
    folder.mkdir()
    loop = asyncio.get_running_loop()
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failed.append(context))
    asked = asyncio.Event()

    def own() -> bytes:
        asked.set()
        return with_calls(1, open_calls=0).exposition()

    async with merged_metrics(folder, own), asyncio.timeout(30):
        folder.rename(away)
        for _ in range(2):
            asked.clear()
            await asked.wait()
        folder.mkdir()
    assert samples(next(folder.glob("*.prom")).read_bytes())[CALLS] == 1
    assert not failed


async def test_what_is_damaged_in_a_journal_is_counted(database_url: str, tmp_path: Path) -> None:
    left = Journal(tmp_path / "journal", name="damaged", max_bytes=MIB)
    left.append(b"x" * 100)
    path = left.segments[0].path
    left.close()
    path.write_bytes(path.read_bytes()[:-1])
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        await until(lambda: proxy.service.ledger.state().damaged_bytes)
        async with session.get(f"{proxy.url}/metrics") as answer:
            found = samples(await answer.read())
    assert found[("passthrough_journal_damaged_bytes_total", ())] == 107  # with a frame's head of 8 bytes
