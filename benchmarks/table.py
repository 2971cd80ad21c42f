"""The figures as a table in Markdown, which is also how the README shows them."""

from collections.abc import Mapping

# (figure, what it is called, digits)
ROWS = (
    ("cpu_us_per_call", "CPU per unary call, µs", 1),
    ("cpu_us_per_paced_call", "the same at 4,000 calls/s, µs", 1),
    ("cpu_us_per_frame", "CPU per streamed frame, µs", 1),
    ("cpu_us_per_completion", "CPU per completion of 100 frames, µs", 0),
    ("calls_per_second", "calls per second on one core", 0),
    ("p50_ms_1", "latency p50, 1 connection, ms", 3),
    ("added_p50_ms_1", "added latency p50, 1 connection, ms", 3),
    ("added_p99_ms_1", "added latency p99, 1 connection, ms", 3),
    ("added_p50_ms_32", "added latency p50, 32 connections, ms", 2),
    ("added_p99_ms_32", "added latency p99, 32 connections, ms", 2),
    ("lag_p50_ms", "frame lag p50, 500 streams at 50 frames/s, ms", 2),
    ("lag_p99_ms", "frame lag p99, 500 streams at 50 frames/s, ms", 2),
    ("memory_idle_mb", "memory idle, MB", 0),
    ("memory_kb_per_stream", "memory per open stream, KB", 1),
    ("database_cpu_us_per_call", "PostgreSQL's CPU per unary call, µs", 1),
)
PEER = "Envoy"


def table(figures: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Render a column per contender, and what passthrough is relative to Envoy on the same upstream."""
    columns: list[tuple[str, Mapping[str, float], Mapping[str, float] | None]] = []
    for name, found in figures.items():
        columns.append((name, found, None))
        own, comma, upstream = name.partition(",")
        if own == PEER and (ours := figures.get(f"passthrough{comma}{upstream}")):
            columns.append(("ratio", ours, found))
    lines = [
        f"|{title}|" + "".join(f" {name} |" for name, _, _ in columns),
        "|---|" + "---:|" * len(columns),
    ]
    for row, label, digits in ROWS:
        lines.append(f"| {label} |" + "".join(f" {_cell(row, digits, *column[1:])} |" for column in columns))
    if "LiteLLM" in figures:
        lines.append(
            "\nLiteLLM: without a database; 20 streams instead of 500, more than those one core does not carry."
        )
    return "\n".join(lines)


def _cell(row: str, digits: int, found: Mapping[str, float], peer: Mapping[str, float] | None) -> str:
    if row not in found or (peer is not None and not peer.get(row)):
        return ""
    return f"{found[row]:,.{digits}f}" if peer is None else f"{found[row] / peer[row]:.2f}"
