"""What is counted, in Prometheus's terms. Names follow OpenTelemetry's GenAI conventions where there is one.

No label holds a key, a user or a session: labels are few and known in number.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from passthrough.policy.ledger import Entry

# OpenTelemetry's buckets for gen_ai.server.request.duration
_BOUNDS_MS = (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 20480, 40960, 81920)
_BOUNDS = (*(str(bound / 1000) for bound in _BOUNDS_MS), "+Inf")  # in seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The library would show beside each counter when it was made, as a gauge: added up over workers that is no moment.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library gives this one no types


class Metrics:
    """The metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = _Calls()
        self.registry.register(self._calls)
        self.call_ended = self._calls.ended
        self._limits = Counter(
            "passthrough_limit_refusals", "Calls that a limit refused.", ("field", "shadow"), registry=self.registry
        )
        self._thresholds = Counter(
            "passthrough_limit_crossings", "Thresholds of budgets crossed.", ("threshold",), registry=self.registry
        )
        self._refused = Counter(
            "passthrough_refused_requests",
            "Requests refused before they were calls: not valid HTTP/1.1, or with too large a head.",
            ("status",),
            registry=self.registry,
        )

    def request_refused(self, status: int) -> None:
        """What a client sent was answered with `status` before it was a call; it is in no log and no row."""
        self._refused.labels(str(status)).inc()

    def limit_refused(self, field: str, *, shadow: bool) -> None:
        """A limit refused a call, or would have if it were not in the shadow; `field` is LiteLLM's name of it."""
        self._limits.labels(field, str(shadow).lower()).inc()

    def limit_crossed(self, threshold: str) -> None:
        """A budget passed 75, 90 or 100 %, or its soft limit."""
        self._thresholds.labels(threshold).inc()

    def watch(self, kind: Literal["counter", "gauge"], name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that is kept elsewhere; it is read when somebody asks."""
        self.registry.register(_Watched(kind, name, text, read))

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class _Calls(Collector):
    """What is counted of each call: plain numbers, because every call pays for it, made into metrics when asked for."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str | None, str | None, int, str], int] = {}
        self._durations: dict[str | None, _Durations] = {}
        self._tokens = dict.fromkeys(("input", "output", "cache_read", "cache_write"), 0)
        self._unpriced = 0

    def ended(self, entry: Entry) -> None:
        """Count a call that has ended."""
        operation = entry.operation
        key = (entry.service, operation, entry.status, entry.outcome)
        self._ended[key] = self._ended.get(key, 0) + 1
        durations = self._durations.get(operation)
        if durations is None:
            durations = self._durations[operation] = _Durations()
        durations.milliseconds += entry.duration_ms
        durations.counts[bisect_left(_BOUNDS_MS, entry.duration_ms)] += 1
        tokens = self._tokens
        if entry.input_tokens:
            tokens["input"] += entry.input_tokens
        if entry.output_tokens:
            tokens["output"] += entry.output_tokens
        if entry.cache_read_tokens:
            tokens["cache_read"] += entry.cache_read_tokens
        if entry.cache_write_tokens:
            tokens["cache_write"] += entry.cache_write_tokens
        if entry.price_status == "unknown_model":
            self._unpriced += 1

    def collect(self) -> Iterator[Metric]:
        labels = ("service", "operation", "status", "outcome")
        calls = CounterMetricFamily("passthrough_calls", "Calls that ended, by how.", labels=labels)
        for (service, operation, status, outcome), count in self._ended.items():
            calls.add_metric((service or "", operation or "", str(status), outcome), count)
        yield calls
        seconds = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            labels=("operation",),
        )
        for operation, durations in self._durations.items():
            buckets = list(zip(_BOUNDS, accumulate(durations.counts), strict=True))
            seconds.add_metric((operation or "",), buckets, durations.milliseconds / 1000)
        yield seconds
        tokens = CounterMetricFamily("gen_ai_client_token_usage", "Tokens metered.", labels=("gen_ai_token_type",))
        for kind, count in self._tokens.items():
            tokens.add_metric((kind,), count)
        yield tokens
        yield CounterMetricFamily(
            "passthrough_unpriced_calls", "Calls of a model without a known price.", value=self._unpriced
        )


class _Durations:
    """A histogram: how many calls fell into each bucket, and how long all of them took."""

    __slots__ = ("counts", "milliseconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.milliseconds = 0


class _Watched(Collector):
    def __init__(self, kind: Literal["counter", "gauge"], name: str, text: str, read: Callable[[], float]) -> None:
        self._family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        self._name = name
        self._text = text
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield self._family(self._name, self._text, value=self._read())
