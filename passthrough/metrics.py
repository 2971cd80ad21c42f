"""What is counted, in Prometheus's terms. Names follow OpenTelemetry's GenAI conventions where there is one.

No label holds a key, a user or a session: labels are few and known in number.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from passthrough.policy.ledger import Entry

# OpenTelemetry's buckets for gen_ai.server.request.duration, in seconds
_DURATIONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "passthrough_calls",
            "Calls that ended, by how.",
            ("service", "operation", "status", "outcome"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            ("operation",),
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "gen_ai_client_token_usage", "Tokens metered.", ("gen_ai_token_type",), registry=self.registry
        )
        self._limits = Counter(
            "passthrough_limit_refusals", "Calls that a limit refused.", ("field", "shadow"), registry=self.registry
        )
        self._thresholds = Counter(
            "passthrough_limit_crossings", "Thresholds of budgets crossed.", ("threshold",), registry=self.registry
        )
        self._unpriced = Counter(
            "passthrough_unpriced_calls", "Calls of a model without a known price.", registry=self.registry
        )
        self._refused = Counter(
            "passthrough_refused_requests",
            "Requests refused before they were calls: not valid HTTP/1.1, or with too large a head.",
            ("status",),
            registry=self.registry,
        )
        # children by label values: a lookup here is cheaper than prometheus_client's own
        self._counters: dict[tuple[str, str, int, str], Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._token_counters = {
            kind: self._tokens.labels(kind) for kind in ("input", "output", "cache_read", "cache_write")
        }

    def call_ended(self, entry: Entry) -> None:
        operation = entry.operation or ""
        key = (entry.service or "", operation, entry.status, entry.outcome)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._calls.labels(key[0], key[1], str(key[2]), key[3])
        counter.inc()
        histogram = self._histograms.get(operation)
        if histogram is None:
            histogram = self._histograms[operation] = self._durations.labels(operation)
        histogram.observe(entry.duration_ms / 1000)
        self._count_tokens(entry)

    def _count_tokens(self, entry: Entry) -> None:
        counters = self._token_counters
        if entry.input_tokens:
            counters["input"].inc(entry.input_tokens)
        if entry.output_tokens:
            counters["output"].inc(entry.output_tokens)
        if entry.cache_read_tokens:
            counters["cache_read"].inc(entry.cache_read_tokens)
        if entry.cache_write_tokens:
            counters["cache_write"].inc(entry.cache_write_tokens)
        if entry.price_status == "unknown_model":
            self._unpriced.inc()

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


class _Watched(Collector):
    def __init__(self, kind: Literal["counter", "gauge"], name: str, text: str, read: Callable[[], float]) -> None:
        self._family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        self._name = name
        self._text = text
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield self._family(self._name, self._text, value=self._read())
