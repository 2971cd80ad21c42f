"""The metrics of several worker processes behind one `/metrics`.

Every worker writes its own to a file about once a second; whoever is asked adds its present ones to what the
others wrote. A worker that died keeps its counts, so that sums never go back; its gauges go with it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

PUBLISH_SECONDS = 1.0
SUFFIX = ".prom"

_Labels = tuple[tuple[str, str], ...]


class MergedMetrics:
    """`own` gives this worker's exposition, `folder` is the workers' common one; open it with `async with`."""

    def __init__(self, folder: Path, own: Callable[[], bytes]) -> None:
        self._path = folder / f"{os.getpid()}{SUFFIX}"
        self._own = own

    def exposition(self) -> bytes:
        others = [path for path in self._path.parent.glob(f"*{SUFFIX}") if path != self._path]
        texts = [(self._own().decode(), True), *((path.read_text(), _alive(int(path.stem))) for path in others)]
        registry = CollectorRegistry()
        registry.register(_Sum(texts))
        return generate_latest(registry)

    def publish(self) -> None:
        whole = self._path.with_suffix(".new")
        content = self._own()
        with contextlib.suppress(OSError):  # the disk is full: what is not told now is told with the next
            whole.write_bytes(content)
            whole.replace(self._path)  # a reader sees the old or the new, never a half


@contextlib.asynccontextmanager
async def merged_metrics(folder: Path, own: Callable[[], bytes]) -> AsyncIterator[MergedMetrics]:
    """Own the publishing of this worker's metrics."""
    merged = MergedMetrics(folder, own)
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def publish() -> None:
        nonlocal timer
        merged.publish()
        timer = loop.call_later(PUBLISH_SECONDS, publish)

    publish()
    try:
        yield merged
    finally:
        timer.cancel()
        merged.publish()


class _Sum(Collector):
    """Adds up expositions, each with whether its process lives."""

    def __init__(self, texts: list[tuple[str, bool]]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, _Labels], float]] = {}
        for text, alive in self._texts:
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, family)
                counts = sums.setdefault(family.name, {})
                if family.type == "gauge" and not alive:
                    continue
                for sample in family.samples:
                    key = sample.name, tuple(sorted(sample.labels.items()))
                    counts[key] = counts.get(key, 0.0) + sample.value
        for name, family in families.items():
            total = Metric(name, family.documentation, family.type)
            for (sample_name, labels), value in sums[name].items():
                total.add_sample(sample_name, dict(labels), value)
            yield total


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
